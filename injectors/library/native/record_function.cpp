#include "record_function.h"

#include "bursts.h"
#include "fork.h"
#include "intern.h"
#include "python_frames.h"
#include "ring.h"
#include "shapes.h"
#include "torch_api.h"
#include "torch_lock.h"
#include "user_scopes.h"

namespace gputap {

namespace {

uint64_t user_handle, operator_handle; /* 0 = not registered */
bool user_put; /* user scopes come without an entry in the list */
bool found, operators_want_inputs;

template <typename T>
inline T field(const void *record_function, int32_t offset, T otherwise) {
  if (offset < 0) return otherwise;
  T value;
  __builtin_memcpy(&value, (const char *)record_function + offset, sizeof value);
  return value;
}

// Schema names live as long as the schema, so their address finds the id. The first 16 bytes guard
// against a schema that was freed and another put in its place; libstdc++ keeps 16 readable bytes in
// every string that is not empty.
inline uint32_t schema_name(Live *live, ThreadState *thread, const char *name) {
  uint64_t first = load_word(name), second = load_word(name + 8);
  NameEntry *entry = &thread->caches.names[((uintptr_t)name >> 4 ^ (uintptr_t)name >> 12) & (kNameCache - 1)];
  if (GPUTAP_LIKELY(entry->name == name && entry->first == first && entry->second == second))
    return entry->id;
  uint32_t id = intern_cached(live, thread, name, text_length(name, kLongestString)).id;
  if (id) *entry = {name, first, second, id};
  return id;
}

// Length of a name that is a std::string in the RecordFunction: read from the string itself where
// its address confirms the layout, else counted.
inline size_t string_length(const Live *live, const void *record_function, const char *name) {
  const gputap_torch_layout &layout = live->torch;
  if (layout.cxx11_abi == 1 && layout.fn_index >= 32) {
    const char *string = (const char *)record_function + layout.fn_index - 32;
    if ((const char *)load_word(string) == name) {
      uint64_t length = load_word(string + 8);
      return length < kLongestString ? length : kLongestString;
    }
  }
  return text_length(name, kLongestString);
}

// The name of an autograd node or a user scope dies with its RecordFunction: copied by content.
inline StringRef string_name(Live *live, ThreadState *thread, const void *record_function) {
  const char *name = g_torch.name(record_function);
  return intern_cached(live, thread, name, string_length(live, record_function, name));
}

inline uint8_t kind_of(const Live *live, const void *record_function, uint8_t otherwise) {
  switch (field<uint8_t>(record_function, live->torch.scope, 0xff)) {
    case kFunction:
      return GPUTAP_EVENT_KIND_OPERATOR;
    case kBackward:
      return GPUTAP_EVENT_KIND_AUTOGRAD;
    case kTorchScript:
      return GPUTAP_EVENT_KIND_TORCHSCRIPT;
    case kUserScope:
      return GPUTAP_EVENT_KIND_USER_SCOPE;
    default:
      return otherwise;
  }
}

inline void fill(Context *context, Live *live, ThreadState *thread, const void *record_function) {
  const gputap_torch_layout &layout = live->torch;
  context->window = thread->window;
  context->seq = field<int64_t>(record_function, layout.seq, -1);
  context->fwd_tid = (uint32_t)field<uint64_t>(record_function, layout.forward_thread_id, 0);
  context->flags = 0;
  context->stack_id = 0;
  if (live->walk_stacks) {
    context->stack_id = stack_id(live, thread);
    if (!context->stack_id) context->flags = GPUTAP_EVENT_FLAG_NO_STACK;
  }
  uint32_t depth = thread_depth(thread);
  context->depth = (uint16_t)(depth < 0xffff ? depth : 0xffff);
  context->shape_id = 0;
  context->nests = 1;
}

inline void begin(Context *context, ThreadState *thread) {
  if (!context->name_id) context->flags |= GPUTAP_EVENT_FLAG_NAME_LOST;
  thread->opened += context->nests;
  context->open = 1;
  context->start_ticks = now_ticks();
}

// Enters the callback; null if there is nothing to do, and then the callback is left.
inline ThreadState *enter(Live *live, const void *record_function) {
  ThreadState *thread = thread_state();
  if (GPUTAP_UNLIKELY(!thread)) return nullptr;
  uint32_t window = callback_enter(thread, live);
  if (GPUTAP_UNLIKELY(window != thread->window)) {
    if (!window) {
      callback_leave(thread);
      return nullptr;
    }
    thread_enter_window(
        thread, live,
        (uint32_t)field<uint64_t>(record_function, live->torch.thread_id, 0));
  }
  return thread;
}

inline Context *take_context(Live *live, ThreadState *thread) {
  Context *context = context_take(thread);
  if (GPUTAP_UNLIKELY(!context)) {
    count_drop(live, GPUTAP_DROP_CAUSE_NO_CONTEXT);
    callback_leave(thread);
  }
  return context;
}

ContextPointer operator_start(const void *record_function) {
  Live *live = g_live;
  if (!load(&live->window)) return nullptr;
  ThreadState *thread = enter(live, record_function);
  if (GPUTAP_UNLIKELY(!thread)) return nullptr;
  if (!load(&live->recording)) {
    store(&thread->armed_events, thread->armed_events + 1);
    callback_leave(thread);
    return nullptr;
  }
  store(&thread->op_events, thread->op_events + 1);
  Context *context = take_context(live, thread);
  if (GPUTAP_UNLIKELY(!context)) return nullptr;
  fill(context, live, thread, record_function);
  context->kind = kind_of(live, record_function, GPUTAP_EVENT_KIND_OPERATOR);
  context->name_class = kPlainName;
  context->name_id = field<uint8_t>(record_function, live->torch.fn_index, 0) == 1
                         ? schema_name(live, thread, g_torch.name(record_function))
                         : string_name(live, thread, record_function).id;
  if (GPUTAP_UNLIKELY(live->want_shapes)) context->shape_id = shapes_of(live, thread, record_function);
  begin(context, thread);
  callback_leave(thread);
  return context;
}

ContextPointer user_start(const void *record_function) {
  Live *live = g_live;
  if (!load(&live->window)) return nullptr;
  ThreadState *thread = enter(live, record_function);
  if (GPUTAP_UNLIKELY(!thread)) return nullptr;
  store(&thread->user_events, thread->user_events + 1);
  Context *context = take_context(live, thread);
  if (GPUTAP_UNLIKELY(!context)) return nullptr;
  fill(context, live, thread, record_function);
  context->kind = GPUTAP_EVENT_KIND_USER_SCOPE;
  StringRef name = string_name(live, thread, record_function);
  context->name_id = name.id;
  context->name_class = (uint8_t)name.name_class;
  // Work of a collective ends on another thread, at any time: what this thread does until then is
  // not inside it.
  if (g_torch.is_async && g_torch.is_async(record_function)) context->nests = 0;
  // torch hands a Work's tensors over whether or not inputs are wanted.
  if (live->want_shapes || name.name_class == kCollective)
    context->shape_id = shapes_of(live, thread, record_function);
  if (name.name_class == kLoaderNext) bursts_boundary(live, thread, kLoaderBoundary);
  begin(context, thread);
  callback_leave(thread);
  return context;
}

inline void close_depth(Context *context, ThreadState *thread) {
  if (!context->nests) return;
  if (context->owner == thread)
    thread->closed++;
  else
    add(&context->owner->closed_elsewhere, 1u);
}

inline void write(Context *context, Live *live, ThreadState *thread, uint64_t end_ticks) {
  gputap_event_record *record = ring_reserve(thread, live);
  if (GPUTAP_UNLIKELY(!record)) return;
  record->start_ticks = context->start_ticks;
  record->end_ticks = end_ticks;
  record->seq = context->seq;
  record->name_id = context->name_id;
  record->stack_id = context->stack_id;
  record->tid = context->owner->tid;
  record->fwd_tid = context->fwd_tid;
  record->shape_id = context->shape_id;
  record->depth = context->depth;
  record->kind = context->kind;
  record->flags = context->flags;
  ring_publish(thread);
}

void end(const void *record_function, Context *context) {
  if (!context) return;
  uint64_t end_ticks = now_ticks();
  Live *live = g_live;
  // The owner, where we run on it, costs no look into thread-local storage.
  ThreadState *thread = context->owner;
  if (GPUTAP_UNLIKELY(!thread_is_current(thread))) thread = thread_state();
  if (GPUTAP_UNLIKELY(!thread)) return;
  uint32_t window = callback_enter(thread, live);
  // Of a closed window: it was counted as open when the window closed. Another gputap's has its own
  // count here.
  if (GPUTAP_UNLIKELY(!window || context->window != window)) {
    if (window && context->window < live->first_window)
      count_drop(live, GPUTAP_DROP_CAUSE_LATE_END);
    callback_leave(thread);
    return;
  }
  if (GPUTAP_UNLIKELY(thread->window != window))
    thread_enter_window(thread, live,
                        (uint32_t)field<uint64_t>(record_function, live->torch.thread_id, 0));
  if (GPUTAP_UNLIKELY(!context->open)) {
    count_drop(live, GPUTAP_DROP_CAUSE_STRAY_END);
    callback_leave(thread);
    return;
  }
  context->open = 0;
  if (GPUTAP_UNLIKELY(context->owner != thread)) context->flags |= GPUTAP_EVENT_FLAG_ASYNC_END;
  close_depth(context, thread);
  write(context, live, thread, end_ticks);
  if (GPUTAP_UNLIKELY(context->name_class == kOptimizerStep))
    bursts_boundary(live, thread, kOptimizerBoundary);
  callback_leave(thread);
}

RecordFunctionCallback user_callback() {
  RecordFunctionCallback callback = {user_start, end, 1.0, {}, false, false, false};
  callback.scopes[kUserScope] = true;
  return callback;
}

RecordFunctionCallback operator_callback(bool needs_inputs) {
  RecordFunctionCallback callback = {operator_start, end, 1.0, {}, needs_inputs, false, false};
  callback.scopes[kFunction] = callback.scopes[kBackward] = callback.scopes[kTorchScript] = true;
  return callback;
}

// Registered, not only enabled, for as long as it is wanted: at every node of a backward pass torch
// copies its list of callbacks twice, so one that is in the list costs even while it is disabled.
uint64_t add(const RecordFunctionCallback &callback) {
  ForkGuard guard;
  return guard.allowed() ? g_torch.add(callback) : 0;
}

void remove(uint64_t *handle) {
  ForkGuard guard;
  if (*handle && guard.allowed()) g_torch.remove(*handle);
  *handle = 0;
}

// Torch's lock can be found only while an entry of ours is in the list that it guards.
void find_lock() {
  if (torch_lock_is_known()) return;
  user_handle = add(user_callback());
  torch_lock_find(user_start, user_handle);
  remove(&user_handle);
}

}  // namespace

const char *record_function_install() {
  if (found) return nullptr;
  const char *missing = torch_api_find();
  if (missing) return missing;
  find_lock();
  user_scopes_find(g_torch.library, {user_start, end});
  found = true;
  return nullptr;
}

void record_function_remove() {
  record_function_enable_operators(false);
  record_function_enable_user(false);
}

void record_function_enable_user(bool on) {
  if (on == record_function_user_enabled() || !found) return;
  if (!on && user_put) {
    user_scopes_put(false);
    user_put = false;
  } else if (on && user_scopes_put(true)) {
    user_put = true;
  } else if (on) {
    user_handle = add(user_callback());
  } else {
    remove(&user_handle);
  }
}

void record_function_enable_operators(bool on) {
  if (on == record_function_operators_enabled() || !found) return;
  if (on)
    operator_handle = add(operator_callback(operators_want_inputs));
  else
    remove(&operator_handle);
}

void record_function_want_inputs(bool on) { operators_want_inputs = on; }

bool record_function_user_enabled() { return user_put || user_handle; }

bool record_function_operators_enabled() { return operator_handle != 0; }

void record_function_forget_after_fork() {
  torch_lock_drop_entries(user_start, operator_start);
  user_handle = operator_handle = 0;
  if (user_put) user_scopes_put(false);
  user_put = false;
}

}  // namespace gputap
