#include "window.h"

#include "bursts.h"
#include "ring.h"

namespace gputap {

namespace {

constexpr int64_t kDrainNs = 2000000000;

uint32_t windows; /* ever opened; a window's number */
uint64_t due_ticks;
uint64_t armed_base, user_base, armed_before, user_before;

}  // namespace

bool window_is_open() { return load(&g_live->window) != 0; }

bool window_is_due(Live *live) {
  return window_is_open() && live->header->window_ns && now_ticks() >= due_ticks;
}

void window_count(Live *live) {
  gputap_control_header *header = live->header;
  uint64_t events = 0, dropped = 0;
  for (uint32_t i = 0; i < header->ring_count; i++) {
    gputap_ring_header *ring = ring_at(header, i);
    // Slots are claimed from the first on: an untouched one ends the used part.
    if (!load(&ring->generation)) break;
    events += load(&ring->head);
    dropped += load(&ring->dropped);
  }
  store(&header->events, events);
  store(&header->dropped[GPUTAP_DROP_CAUSE_RING_FULL], dropped);
  ThreadTotals totals = threads_totals();
  if (!window_is_open()) return;
  store(&header->armed_events, armed_before + totals.armed_events - armed_base);
  store(&header->user_events, user_before + totals.user_events - user_base);
}

void window_open(Live *live) {
  gputap_control_header *header = live->header;
  ThreadTotals totals = threads_totals();
  armed_base = totals.armed_events;
  user_base = totals.user_events;
  armed_before = header->armed_events;
  user_before = header->user_events;
  live->mode = header->mode;
  live->walk_stacks = header->want_stacks && (header->op_fields & GPUTAP_OP_FIELD_STACK);
  live->want_shapes = header->want_shapes && (header->op_fields & GPUTAP_OP_FIELD_SHAPES);
  live->want_gc = header->want_gc;
  uint64_t now = now_ticks();
  due_ticks = now + ns_to_ticks((int64_t)header->window_ns);
  store(&header->stop_reason, GPUTAP_STOP_REASON_NONE);
  store(&header->window_end_ticks, 0);
  store(&header->window_start_ticks, now);
  store(&header->state, GPUTAP_AGENT_STATE_CAPTURING);
  if (++windows == 0) ++windows;
  if (!live->first_window) live->first_window = windows;
  // Callbacks that run already find the window closed; the recording's state is complete first.
  bursts_begin(live);
  store_release(&live->window, windows);
}

bool window_close(Live *live, gputap_stop_reason reason) {
  if (!window_is_open()) return threads_drain(kDrainNs);
  gputap_control_header *header = live->header;
  uint32_t window = live->window;
  bursts_end(live);
  window_count(live);
  store_release(&live->window, 0);
  uint64_t now = now_ticks();
  bool drained = threads_drain(kDrainNs);
  live->recording = header->recording = 0;
  count_drop(live, GPUTAP_DROP_CAUSE_OPEN_AT_CLOSE, threads_open_contexts(window));
  window_count(live);
  store(&header->window_end_ticks, now);
  store(&header->stop_reason, reason);
  store_release(&header->state, GPUTAP_AGENT_STATE_CONFIGURED);
  return drained;
}

}  // namespace gputap
