// Python stacks of the calling thread, read without the GIL: the thread is inside a C call, so its own
// frames cannot change under it. All knowledge of CPython's structures comes from gputap's tables.
#ifndef GPUTAP_PYTHON_FRAMES_H
#define GPUTAP_PYTHON_FRAMES_H

#include "text.h"
#include "threads.h"

namespace gputap {

constexpr uint32_t kMostFrames = 64;

// PyGILState_GetThisThreadState, which needs no GIL; null until found.
extern void *(*g_this_thread_state)();

// Finds it. False if the process has no Python.
bool python_frames_find(uint32_t version);

template <typename T>
inline T read_at(const char *base, int32_t offset) {
  T value;
  __builtin_memcpy(&value, base + offset, sizeof value);
  return value;
}

inline bool is_pointer(const char *pointer) {
  return (uintptr_t)pointer > 4096 && ((uintptr_t)pointer & 7) == 0;
}

inline const char *first_frame(const gputap_python_layout &layout) {
  const char *state = (const char *)g_this_thread_state();
  if (!is_pointer(state)) return nullptr;
  const char *frame = read_at<const char *>(state, layout.tstate_frame);
  if (layout.cframe_current >= 0 && is_pointer(frame))
    frame = read_at<const char *>(frame, layout.cframe_current);
  return frame;
}

inline const char *untagged(const char *pointer, const gputap_python_layout &layout) {
  return (const char *)((uintptr_t)pointer & ~(uintptr_t)(uint32_t)layout.pointer_tag_mask);
}

inline bool frame_is_shim(const char *frame, const gputap_python_layout &layout) {
  return layout.frame_owner >= 0 &&
         read_at<uint8_t>(frame, layout.frame_owner) == (uint8_t)layout.owner_cstack;
}

inline uint64_t frame_instruction(const char *frame, const gputap_python_layout &layout) {
  if (layout.instr_is_lasti) return (uint32_t)read_at<int32_t>(frame, layout.frame_instr);
  return read_at<uint64_t>(frame, layout.frame_instr);
}

inline bool is_module_code(const Live *live, const char *code) {
  uint64_t pointer = (uint64_t)code;
  return pointer == load(&live->module_codes[0]) || pointer == load(&live->module_codes[1]) ||
         pointer == load(&live->module_codes[2]) || pointer == load(&live->module_codes[3]);
}

// Rare: a process has one such code object, unless torch was reloaded.
inline bool is_other_module_code(const Live *live, const char *code) {
  return load(&live->module_codes[1]) && is_module_code(live, code);
}

inline uint64_t frame_module(const char *frame, const gputap_python_layout &layout) {
  return (uint64_t)untagged(read_at<const char *>(frame, layout.frame_locals), layout);
}

// The hash that a str keeps of itself; -1 where nobody has asked for it yet.
inline uint64_t text_hash(const char *object, const gputap_python_layout &layout) {
  return is_pointer(object) ? read_at<uint64_t>(object, layout.unicode_length + 8) : 0;
}

inline uint64_t code_identity(const char *code, const gputap_python_layout &layout) {
  return text_hash(read_at<const char *>(code, layout.code_name), layout) +
         text_hash(read_at<const char *>(code, layout.code_filename), layout);
}

// Id of the calling thread's stack after a miss in its cache.
uint32_t stack_intern(Live *live, ThreadState *thread);

// Hash of the calling thread's frames; 0 if it has none. The hot path of a capture with stacks: some
// ten loads and one multiplication a frame.
inline uint64_t stack_hash(const Live *live) {
  const gputap_python_layout &layout = live->python;
  const char *frame = first_frame(layout);
  if (!is_pointer(frame)) return 0;
  const int32_t back = layout.frame_back, code_at = layout.frame_code, owner = layout.frame_owner;
  const uint8_t cstack = (uint8_t)layout.owner_cstack;
  const uint64_t module_code = load(&live->module_codes[0]);
  uint64_t hash = 0;
  for (uint32_t n = 0; n < kMostFrames && is_pointer(frame); n++) {
    const char *next = read_at<const char *>(frame, back);
    if (owner < 0 || read_at<uint8_t>(frame, owner) != cstack) {
      const char *code = untagged(read_at<const char *>(frame, code_at), layout);
      if (!is_pointer(code)) break;
      // A code object may be freed and another put in its place, names and all: only what the
      // strings say tells them apart. CPython keeps a hash of it in each (behind the length).
      uint64_t word = code_identity(code, layout) + (uint64_t)code +
                      frame_instruction(frame, layout) * 0x9e3779b97f4a7c15ull;
      hash = (hash ^ word) * 0xd6e8feb86659fd93ull;
      if ((uint64_t)code == module_code || GPUTAP_UNLIKELY(is_other_module_code(live, code)))
        hash = (hash ^ frame_module(frame, layout)) * 0xd6e8feb86659fd93ull;
    }
    frame = next;
  }
  return hash_step(hash, 0);
}

inline uint32_t stack_id(Live *live, ThreadState *thread) {
  uint64_t hash = stack_hash(live);
  if (hash == 0) return 0;
  if (hash == thread->last_stack_hash) return thread->last_stack_id;
  CachedId *cached = &thread->caches.stacks[hash & (kStackCache - 1)];
  uint32_t id = cached->id;
  if (GPUTAP_UNLIKELY(cached->key != hash)) id = stack_intern(live, thread);
  thread->last_stack_hash = hash;
  thread->last_stack_id = id;
  return id;
}

}  // namespace gputap

#endif
