#include "python_frames.h"

#include "host.h"
#include "intern.h"

namespace gputap {

void *(*g_this_thread_state)();

namespace {

constexpr uint32_t kLongestLineTable = 256 * 1024;

struct Frame {
  const char *code;
  uint64_t instruction;
  uint64_t module;
};

struct Frames {
  Frame at[kMostFrames];
  uint32_t count;
  bool truncated;
  uint64_t hash;
};

void collect(const Live *live, Frames *frames) {
  const gputap_python_layout &layout = live->python;
  const char *frame = first_frame(layout);
  uint32_t n = 0;
  frames->count = 0;
  for (; n < kMostFrames && is_pointer(frame); n++) {
    if (!frame_is_shim(frame, layout)) {
      Frame *out = &frames->at[frames->count];
      out->code = untagged(read_at<const char *>(frame, layout.frame_code), layout);
      if (!is_pointer(out->code)) break;
      out->instruction = frame_instruction(frame, layout);
      out->module = is_module_code(live, out->code) ? frame_module(frame, layout) : 0;
      frames->count++;
    }
    frame = read_at<const char *>(frame, layout.frame_back);
  }
  frames->truncated = n == kMostFrames && is_pointer(frame);
  frames->hash = stack_hash(live);
}

// Copies a str. Wide characters become '?'; the shared memory promises UTF-8 only.
size_t copy_unicode(const gputap_python_layout &layout, const char *object, char *out, size_t most) {
  if (!is_pointer(object)) return 0;
  int64_t length = read_at<int64_t>(object, layout.unicode_length);
  uint32_t state = read_at<uint32_t>(object, layout.unicode_state);
  if (length < 0) return 0;
  if ((size_t)length > most) length = (int64_t)most;
  if ((state & layout.unicode_ascii_mask) == layout.unicode_ascii_mask) {
    __builtin_memcpy(out, object + layout.unicode_ascii_data, (size_t)length);
    return (size_t)length;
  }
  uint32_t width = layout.unicode_data > 0 ? state >> layout.unicode_kind_shift & 7 : 0;
  if (width != 1 && width != 2 && width != 4) {
    out[0] = '?';
    return 1;
  }
  size_t n = 0;
  const char *data = object + layout.unicode_data;
  for (int64_t i = 0; i < length && n + 4 <= most; i++) {
    uint32_t c = width == 1   ? read_at<uint8_t>(data, (int32_t)i)
                 : width == 2 ? read_at<uint16_t>(data, (int32_t)i * 2)
                              : read_at<uint32_t>(data, (int32_t)i * 4);
    if (c < 0x80) {
      out[n++] = (char)c;
    } else if (c < 0x800) {
      out[n++] = (char)(0xc0 | c >> 6);
      out[n++] = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
      out[n++] = (char)(0xe0 | c >> 12);
      out[n++] = (char)(0x80 | (c >> 6 & 63));
      out[n++] = (char)(0x80 | (c & 63));
    } else {
      out[n++] = (char)(0xf0 | (c >> 18 & 7));
      out[n++] = (char)(0x80 | (c >> 12 & 63));
      out[n++] = (char)(0x80 | (c >> 6 & 63));
      out[n++] = (char)(0x80 | (c & 63));
    }
  }
  return n;
}

struct CodeText {
  char name[512];
  char file[1024];
  size_t name_length, file_length;
};

void read_text(const gputap_python_layout &layout, const char *code, CodeText *text) {
  int32_t name = layout.code_qualname >= 0 ? layout.code_qualname : layout.code_name;
  text->name_length = copy_unicode(layout, read_at<const char *>(code, name), text->name,
                                   sizeof text->name);
  text->file_length = copy_unicode(layout, read_at<const char *>(code, layout.code_filename),
                                   text->file, sizeof text->file);
}

bool is_name(const CodeText &text, const char *name) {
  return text.name_length == __builtin_strlen(name) &&
         text_starts(text.name, text.name_length, name);
}

// torch 2.0 calls forward from _call_impl, where local 0 is the module; later ones keep `self` of
// _call_impl in a cell and wrap it.
bool calls_module(const Live *live, const CodeText &text) {
  if (!text_ends(text.file, text.file_length, "torch/nn/modules/module.py")) return false;
  bool qualified = live->python.code_qualname >= 0;
  if (is_name(text, qualified ? "Module._wrapped_call_impl" : "_wrapped_call_impl")) return true;
  return live->torch.version == 2000 &&
         is_name(text, qualified ? "Module._call_impl" : "_call_impl");
}

void remember_module_code(Live *live, const char *code) {
  for (uint64_t &known : live->module_codes) {
    if (load(&known) == (uint64_t)code) return;
    if (change(&known, (uint64_t)0, (uint64_t)code)) return;
  }
}

uint64_t code_key(const gputap_python_layout &layout, const char *code) {
  uint64_t hash = hash_step((uint64_t)code, code_identity(code, layout));
  hash = hash_step(hash, (uint64_t)(uint32_t)read_at<int32_t>(code, layout.code_firstlineno));
  return hash ? hash : 1;
}

void copy_line_table(Live *live, const char *code, gputap_code_entry *entry) {
  const gputap_python_layout &layout = live->python;
  const char *table = read_at<const char *>(code, layout.code_linetable);
  if (!is_pointer(table)) return;
  int64_t size = read_at<int64_t>(table, layout.bytes_size);
  if (size <= 0 || size > kLongestLineTable) return;
  if (arena_put(live, table + layout.bytes_data, (uint32_t)size, &entry->linetable_offset))
    entry->linetable_length = (uint32_t)size;
}

uint32_t code_intern(Live *live, const char *code) {
  const gputap_python_layout &layout = live->python;
  Slot *slot;
  uint32_t id = index_find(live->code_index, code_key(layout, code), &slot, nullptr);
  if (id) {
    // CONFIGURE with another layout forgets them.
    if (live->codes[id].is_module_call) remember_module_code(live, code);
    return id;
  }
  id = next_id(&live->header->codes_count, live->header->codes_capacity);
  if (!id) return 0;
  CodeText text;
  read_text(layout, code, &text);
  gputap_code_entry *entry = &live->codes[id];
  entry->code_ptr = (uint64_t)code;
  entry->name_id = intern_string(live, text.name, text.name_length,
                                 hash_text(text.name, text.name_length))
                       .id;
  entry->filename_id = intern_string(live, text.file, text.file_length,
                                     hash_text(text.file, text.file_length))
                           .id;
  entry->firstlineno = read_at<int32_t>(code, layout.code_firstlineno);
  copy_line_table(live, code, entry);
  entry->is_module_call = calls_module(live, text);
  if (entry->is_module_call) remember_module_code(live, code);
  store_release(&entry->ready, 1);
  index_set(slot, id, 0);
  return id;
}

int32_t last_instruction(const gputap_python_layout &layout, const Frame &frame) {
  if (layout.instr_is_lasti) return (int32_t)frame.instruction * layout.instr_is_lasti;
  if (layout.code_instructions < 0) return -1;
  int64_t offset = (int64_t)(frame.instruction - (uint64_t)frame.code) - layout.code_instructions;
  return offset >= -2 && offset < 1 << 28 ? (int32_t)offset : -1;
}

// Room for `count` frames; `*first` is the index of the first of them.
bool reserve_frames(Live *live, uint32_t count, uint32_t *first) {
  gputap_control_header *header = live->header;
  if (load(&header->frames_count) > header->frames_capacity - count) return false;
  *first = add(&header->frames_count, count);
  return *first <= header->frames_capacity - count;
}

uint32_t stack_write(Live *live, const Frames &frames) {
  uint32_t first;
  uint32_t id = 0;
  if (reserve_frames(live, frames.count, &first))
    id = next_id(&live->header->stacks_count, live->header->stacks_capacity);
  if (!id) {
    count_drop(live, GPUTAP_DROP_CAUSE_STACKS_FULL);
    return 0;
  }
  for (uint32_t i = 0; i < frames.count; i++) {
    gputap_stack_frame *out = &live->frames[first + i];
    out->code_id = code_intern(live, frames.at[i].code);
    out->lasti = last_instruction(live->python, frames.at[i]);
    out->module_ptr = frames.at[i].module;
  }
  gputap_stack_entry *entry = &live->stacks[id];
  entry->hash = frames.hash;
  entry->first_frame = first;
  entry->frame_count = frames.count;
  entry->truncated = frames.truncated;
  store_release(&entry->ready, 1);
  return id;
}

}  // namespace

bool python_frames_find(uint32_t version) {
  const char *symbol = "PyGILState_GetThisThreadState";
  void *found = host_symbol(symbol);
  if (!found && version) {
    char stem[32];
    void *library = host_loaded_library(python_library_stem(version, stem, sizeof stem), stem);
    if (library) found = g_host.dlsym(library, symbol);
  }
  g_this_thread_state = (void *(*)())found;
  return found != nullptr;
}

uint32_t stack_intern(Live *live, ThreadState *thread) {
  if (load(&live->header->stacks_count) >= live->header->stacks_capacity) {
    count_drop(live, GPUTAP_DROP_CAUSE_STACKS_FULL);
    return 0;
  }
  Frames frames;
  collect(live, &frames);
  if (!frames.count) return 0;
  // Interning the codes may find out that one of them calls modules; then the hash takes the modules
  // in, and the frames are read again.
  for (uint32_t i = 0; i < frames.count; i++) code_intern(live, frames.at[i].code);
  collect(live, &frames);
  Slot *slot;
  uint32_t id = index_find(live->stack_index, frames.hash, &slot, nullptr);
  if (!id) {
    id = stack_write(live, frames);
    if (id) index_set(slot, id, 0);
  }
  if (id) thread->caches.stacks[frames.hash & (kStackCache - 1)] = {frames.hash, id, 0};
  return id;
}

}  // namespace gputap
