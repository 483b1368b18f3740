#include "python_check.h"

#include "host.h"
#include "python_api.h"
#include "python_frames.h"

namespace gputap {

namespace {

// `outer` calls `inner` calls the probe; each keeps the probe in its first local.
const char kSource[] =
    "def gputap_outer(probe):\n"
    "    return gputap_inner(probe)\n"
    "def gputap_inner(probe):\n"
    "    return probe()\n"
    "gputap_outer(gputap_probe)\n";

gputap_python_layout layout;
CheckResult result;
PyObject *probe_object;

// A wrong table makes wild pointers: the kernel reads them for us and says so, where a load would
// kill the target.
class SafeMemory {
 public:
  template <typename T>
  T at(const char *base, int32_t offset) {
    T value;
    __builtin_memset(&value, 0, sizeof value);
    bytes(base + offset, &value, sizeof value);
    return value;
  }

  void bytes(const char *from, void *to, size_t count) {
    struct {
      void *base;
      size_t length;
    } local = {to, count}, remote = {(void *)from, count};
    long got = sys::call(sys::kProcessVmReadv, sys::getpid(), (long)&local, 1, (long)&remote, 1);
    if (got == -14 /* EFAULT */ || (got >= 0 && (size_t)got != count)) bad = true;
    else if (got < 0) refused = true;
  }

  bool bad = false, refused = false;
};

bool is_text(SafeMemory &memory, const char *object, const char *wanted) {
  size_t length = __builtin_strlen(wanted);
  char text[32] = {0};
  if (length > sizeof text) return false;
  uint32_t state = memory.at<uint32_t>(object, layout.unicode_state);
  if ((state & layout.unicode_ascii_mask) != layout.unicode_ascii_mask) return false;
  if (memory.at<int64_t>(object, layout.unicode_length) != (int64_t)length) return false;
  memory.bytes(object + layout.unicode_ascii_data, text, length);
  return !memory.bad && __builtin_memcmp(text, wanted, length) == 0;
}

bool instruction_is_sane(SafeMemory &memory, const char *frame, const char *code) {
  int64_t offset;
  if (layout.instr_is_lasti) {
    offset = (int64_t)memory.at<int32_t>(frame, layout.frame_instr) * layout.instr_is_lasti;
  } else {
    if (layout.code_instructions < 0) return false;
    offset = (int64_t)(memory.at<uint64_t>(frame, layout.frame_instr) - (uint64_t)code) -
             layout.code_instructions;
  }
  return offset >= 0 && offset < 256 && !(offset & 1);
}

bool line_table_is_sane(SafeMemory &memory, const char *code) {
  const char *table = memory.at<const char *>(code, layout.code_linetable);
  int64_t size = memory.at<int64_t>(table, layout.bytes_size);
  return size > 0 && size < 256;
}

bool frame_is(SafeMemory &memory, const char *frame, const char *name, int32_t line) {
  const char *code = untagged(memory.at<const char *>(frame, layout.frame_code), layout);
  const char *local = untagged(memory.at<const char *>(frame, layout.frame_locals), layout);
  return is_text(memory, memory.at<const char *>(code, layout.code_name), name) &&
         (layout.code_qualname < 0 ||
          is_text(memory, memory.at<const char *>(code, layout.code_qualname), name)) &&
         is_text(memory, memory.at<const char *>(code, layout.code_filename), "<gputap>") &&
         memory.at<int32_t>(code, layout.code_firstlineno) == line &&
         instruction_is_sane(memory, frame, code) && line_table_is_sane(memory, code) &&
         local == (const char *)probe_object && !memory.bad;
}

const char *next_frame(SafeMemory &memory, const char *frame) {
  return memory.at<const char *>(frame, layout.frame_back);
}

const char *skip_shims(SafeMemory &memory, const char *frame) {
  for (uint32_t i = 0; i < 4 && layout.frame_owner >= 0; i++) {
    if (memory.at<uint8_t>(frame, layout.frame_owner) != (uint8_t)layout.owner_cstack) break;
    frame = next_frame(memory, frame);
  }
  return frame;
}

bool frames_are_as_called(SafeMemory &memory) {
  const char *frame =
      memory.at<const char *>((const char *)g_this_thread_state(), layout.tstate_frame);
  if (layout.cframe_current >= 0) frame = memory.at<const char *>(frame, layout.cframe_current);
  frame = skip_shims(memory, frame);
  if (!frame_is(memory, frame, "gputap_inner", 3)) return false;
  frame = skip_shims(memory, next_frame(memory, frame));
  if (!frame_is(memory, frame, "gputap_outer", 1)) return false;
  // The chain of this young thread must end, soon.
  for (uint32_t i = 0; i < kMostFrames; i++) {
    frame = next_frame(memory, frame);
    if (!frame) return !memory.bad;
    if (memory.bad || !is_pointer(frame)) return false;
  }
  return false;
}

PyObject *probe(PyObject *, PyObject *) {
  SafeMemory memory;
  bool right = frames_are_as_called(memory);
  result = memory.refused ? kCheckRefused : right ? kCheckPassed : kCheckFailed;
  g_python.increase(g_python.none);
  return g_python.none;
}

PyMethod probe_method = {"gputap_probe", probe, kMethodTakesNothing, nullptr};

}  // namespace

void python_check_set(const gputap_python_layout &wanted) {
  layout = wanted;
  result = kCheckOpen;
}

void python_check_run() {
  PyObject *globals = g_python.dict_new();
  PyObject *builtins = g_python.import("builtins");
  probe_object = g_python.function_new(&probe_method, nullptr, nullptr);
  PyObject *code = g_python.compile(kSource, "<gputap>", kFileInput);
  PyObject *done = nullptr;
  if (globals && builtins && probe_object && code) {
    g_python.dict_set(globals, "__builtins__", builtins);
    g_python.dict_set(globals, "gputap_probe", probe_object);
    done = g_python.evaluate(code, globals, globals);
  }
  g_python.error_clear();
  if (globals) g_python.dict_clear(globals);
  PyObject *const owned[] = {done, code, probe_object, builtins, globals};
  for (PyObject *object : owned)
    if (object) g_python.decrease(object);
}

CheckResult python_check_result() { return load_acquire(&result); }

}  // namespace gputap
