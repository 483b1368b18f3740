#include "python_run.h"

#include "gc_pauses.h"
#include "host.h"
#include "python_api.h"
#include "python_check.h"
#include "text.h"

namespace gputap {

namespace {

constexpr uint32_t kQuit = 1u << 30, kGone = 1u << 31; /* in `jobs`: the thread is to end, has ended */
constexpr size_t kAnswerBytes = 32 << 20;

uint32_t jobs = kGone;
uint32_t running; /* jobs that the thread has taken */
uint32_t finished_count;

char *source;
size_t source_bytes;
char *answer;
uint32_t answer_length;
int32_t answer_status;

void answer_with(int32_t status, const char *text, size_t length) {
  answer_status = status;
  answer_length = (uint32_t)(length < kAnswerBytes ? length : kAnswerBytes);
  __builtin_memcpy(answer, text, answer_length);
}

void drop(PyObject *object) {
  if (object) g_python.decrease(object);
}

// "ValueError: no such thing".
void answer_with_error() {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  g_python.error_fetch(&type, &value, &trace);
  g_python.error_normalize(&type, &value, &trace);
  PyObject *name = type ? g_python.get_attribute(type, "__name__") : nullptr;
  PyObject *words = value ? g_python.to_text(value) : nullptr;
  PySize length = 0;
  Text text(answer, kAnswerBytes);
  const char *part = name ? g_python.utf8(name, &length) : nullptr;
  if (part) text.bytes(part, (size_t)length) << ": ";
  part = words ? g_python.utf8(words, &length) : nullptr;
  if (part) text.bytes(part, (size_t)length);
  answer_status = 1;
  answer_length = (uint32_t)text.length();
  PyObject *const owned[] = {name, words, type, value, trace};
  for (PyObject *object : owned) drop(object);
  g_python.error_clear();
}

void answer_with_result(PyObject *globals) {
  PyObject *result = g_python.dict_get(globals, "result");
  PySize length = 0;
  const char *text = result ? g_python.utf8(result, &length) : nullptr;
  g_python.error_clear();
  if (text)
    answer_with(0, text, (size_t)length);
  else
    answer_with(1, "the source left no str in `result`", 34);
}

// In a private dict: the job's __main__ never sees us.
void run_source() {
  PyObject *globals = g_python.dict_new();
  PyObject *builtins = g_python.import("builtins");
  if (globals && builtins) g_python.dict_set(globals, "__builtins__", builtins);
  PyObject *code = g_python.compile(source, "<gputap>", kFileInput);
  PyObject *done = code && globals ? g_python.evaluate(code, globals, globals) : nullptr;
  if (done)
    answer_with_result(globals);
  else
    answer_with_error();
  // Functions of the source hold the dict that holds them.
  if (globals) g_python.dict_clear(globals);
  PyObject *const owned[] = {done, code, builtins, globals};
  for (PyObject *object : owned) drop(object);
}

void do_jobs(uint32_t wanted) {
  if (!python_is_up()) {
    if (wanted & kRunSource) answer_status = -EOPNOTSUPP_, answer_length = 0;
    return;
  }
  int state = g_python.ensure();
  if (wanted & kCheckLayout) python_check_run();
  if (wanted & kSyncGc) gc_pauses_sync();
  if (wanted & kRunSource) run_source();
  g_python.release(state);
}

uint32_t *wake_word;

void *thread_main(void *name) {
  host_name_thread((const char *)name);
  for (;;) {
    uint32_t wanted = load_acquire(&jobs);
    if (wanted == kQuit) {
      if (change(&jobs, kQuit, kGone)) return nullptr;
      continue;
    }
    if (!(wanted & ~kQuit)) {
      sys::futex_wait(&jobs, wanted, -1);
      continue;
    }
    // First said to be running, then taken: never seen as neither.
    store_release(&running, wanted & ~kQuit);
    if (!change(&jobs, wanted, wanted & kQuit)) continue;
    do_jobs(wanted);
    store_release(&running, 0);
    add(&finished_count, 1u);
    sys::futex_wake(&finished_count);
    if (uint32_t *word = load_acquire(&wake_word)) sys::futex_wake(word);
  }
}

}  // namespace

bool python_submit(PythonJob job) {
  for (;;) {
    uint32_t old = load_acquire(&jobs);
    if (old & kGone) {
      store_release(&running, 0);
      store_release(&jobs, (uint32_t)job);
      if (host_start_thread(thread_main, "gputap-python")) return true;
      store_release(&jobs, kGone);
      return false;
    }
    if (!change(&jobs, old, (old & ~kQuit) | (uint32_t)job)) continue;
    sys::futex_wake(&jobs);
    return true;
  }
}

bool python_is_done(PythonJob job) {
  return !(load_acquire(&jobs) & job) && !(load_acquire(&running) & job);
}

bool python_wait(PythonJob job, int64_t timeout_ns) {
  int64_t deadline = sys::monotonic_ns() + timeout_ns;
  for (;;) {
    uint32_t seen = load_acquire(&finished_count);
    if (python_is_done(job)) return true;
    int64_t left = deadline - sys::monotonic_ns();
    if (left <= 0) return false;
    sys::futex_wait(&finished_count, seen, left);
  }
}

bool python_set_source(const char *text, uint32_t length) {
  if (!python_is_done(kRunSource)) return false;
  if (!answer) answer = (char *)sys::map_private(kAnswerBytes);
  if (source) sys::unmap(source, source_bytes);
  source_bytes = length + 1;
  source = (char *)sys::map_private(source_bytes);
  if (!answer || !source) return false;
  __builtin_memcpy(source, text, length);
  return true;
}

PythonAnswer python_answer() { return {answer_status, answer, answer_length}; }

void python_quit() {
  for (uint32_t old = load_acquire(&jobs); !(old & kGone); old = load_acquire(&jobs)) {
    if (!change(&jobs, old, old | kQuit)) continue;
    sys::futex_wake(&jobs);
    return;
  }
}

void python_forget_after_fork() {
  store(&jobs, kGone);
  store(&running, 0);
  wake_word = nullptr;
}

void python_wake_on_done(uint32_t *word) { store_release(&wake_word, word); }

}  // namespace gputap
