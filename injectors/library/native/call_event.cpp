#include "call_event.h"

#include "intern.h"
#include "ring.h"

namespace gputap {

namespace {

constexpr uint32_t kLongestCall = 128;

void write(Live *live, ThreadState *thread, const CallEvent &call) {
  gputap_event_record *record = ring_reserve(thread, live);
  if (!record) return;
  *record = {};
  record->start_ticks = call.start_ticks;
  record->end_ticks = call.end_ticks;
  record->seq = call.seq;
  record->name_id = intern_cached(live, thread, call.name, text_length(call.name, kLongestCall)).id;
  if (call.arguments)
    record->shape_id = intern_cached(live, thread, call.arguments, call.arguments_length).id;
  record->tid = thread->tid;
  uint32_t depth = thread_depth(thread);
  record->depth = (uint16_t)(depth < 0xffff ? depth : 0xffff);
  record->kind = call.kind;
  record->flags = GPUTAP_EVENT_FLAG_NO_STACK;
  if (!record->name_id) record->flags |= GPUTAP_EVENT_FLAG_NAME_LOST;
  ring_publish(thread);
}

}  // namespace

uint64_t call_event_begin() { return load(&g_live->window) ? now_ticks() : 0; }

void call_event_write(const CallEvent &call) {
  Live *live = g_live;
  ThreadState *thread = thread_state();
  if (!thread) return;
  uint32_t window = callback_enter(thread, live);
  if (window) {
    if (window != thread->window) thread_enter_window(thread, live, 0);
    if (call.start_ticks >= live->header->window_start_ticks) write(live, thread, call);
  }
  callback_leave(thread);
}

}  // namespace gputap
