#include "control.h"

#include "bursts.h"
#include "clock.h"
#include "collective_calls.h"
#include "device.h"
#include "gc_pauses.h"
#include "host.h"
#include "python_api.h"
#include "python_check.h"
#include "python_frames.h"
#include "python_run.h"
#include "python_samples.h"
#include "record_function.h"
#include "ring.h"
#include "session.h"
#include "shapes.h"
#include "torch_api.h"
#include "window.h"

namespace gputap {

namespace {

constexpr int64_t kIdleNs = 100000000, kRoundNs = 100000000;
constexpr int64_t kSecondNs = 1000000000, kRecentNs = 3600 * kSecondNs;
constexpr int64_t kFirstLockNs = 10000000000, kQuietNs = 10000000000;
constexpr int64_t kGcWaitNs = 250000000;
constexpr int64_t kCheckWaitNs = 1000000000;
constexpr int64_t kDeviceNs = 4000000000;

struct Control {
  uint32_t command_seq; /* the last one seen */
  bool answering;       /* a RUN_PYTHON is under way */
  int64_t answer_deadline_ns;
  int64_t began_ns;
  int64_t heard_ns; /* when gputap's last command came, or its window was open */
  int64_t round_ns; /* when the last round of housekeeping was */
  bool ending;
};

Control g;

void acknowledge(gputap_control_header *header, int32_t status) {
  header->ack_status = status;
  store_release(&header->ack_seq, g.command_seq);
  sys::futex_wake(&header->ack_seq);
}

// ------------------------------------------------------------------------------------- commands

uint32_t torch_fields(const gputap_torch_layout &layout) {
  uint32_t fields = GPUTAP_OP_FIELD_NAME_AND_TIME;
  if (layout.scope >= 0) fields |= GPUTAP_OP_FIELD_SCOPE;
  if (layout.seq >= 0) fields |= GPUTAP_OP_FIELD_SEQ;
  if (layout.forward_thread_id >= 0) fields |= GPUTAP_OP_FIELD_FORWARD_TID;
  if (g_torch.input_sizes && g_torch.num_inputs && g_torch.operator_delete)
    fields |= GPUTAP_OP_FIELD_SHAPES;
  return fields;
}

// An offset beyond RecordFunction itself would read somebody else's memory.
void bound_layout(gputap_torch_layout *layout) {
  constexpr int32_t kRecordFunctionBytes = 288; /* the smallest of 2.0 to 2.15 */
  int32_t most = kRecordFunctionBytes + (layout->version >= 2004 ? 56 : 0) - 8;
  int32_t *const offsets[] = {&layout->thread_id, &layout->scope,  &layout->fn_index,
                              &layout->seq,       &layout->inputs, &layout->forward_thread_id};
  for (int32_t *offset : offsets)
    if (*offset > most) *offset = -1;
}

// The table is tried on our own thread first. Where Python does not answer in time the table is
// believed: it was chosen by version.
bool python_layout_is_right(const gputap_python_layout &layout) {
  static gputap_python_layout tried;
  if (!python_api_find(layout.version)) return true;
  bool same = __builtin_memcmp(&tried, &layout, sizeof tried) == 0;
  if (same && python_check_result() != kCheckOpen) return python_check_result() != kCheckFailed;
  if (!python_is_up() || !python_is_done(kCheckLayout)) return true;
  tried = layout;
  python_check_set(layout);
  if (!python_submit(kCheckLayout) || !python_wait(kCheckLayout, kCheckWaitNs)) {
    session_say("Python stacks: layout not tried, the interpreter did not answer in time");
    return true;
  }
  return python_check_result() != kCheckFailed;
}

uint32_t python_fields(const gputap_python_layout &layout) {
  if (!layout.enabled) return 0;
  if (!python_frames_find(layout.version)) {
    session_say("Python stacks: the target has no Python");
    return 0;
  }
  if (!python_layout_is_right(layout)) {
    session_say("Python stacks: the layout for this version failed its trial; stacks are off");
    return 0;
  }
  return GPUTAP_OP_FIELD_STACK | GPUTAP_OP_FIELD_MODULE;
}

int32_t configure(Live *live) {
  gputap_control_header *header = live->header;
  if (window_is_open()) return -EBUSY_;
  session_say("");
  const char *missing = record_function_install();
  if (missing) {
    session_say(missing);
    return -ENOSYS_;
  }
  __builtin_memcpy(&live->torch, header->torch_layout, sizeof live->torch);
  // Codes that were seen under the same layout are not looked at again: what is known of them stays.
  if (__builtin_memcmp(&live->python, header->python_layout, sizeof live->python))
    __builtin_memset(live->module_codes, 0, sizeof live->module_codes);
  __builtin_memcpy(&live->python, header->python_layout, sizeof live->python);
  bound_layout(&live->torch);
  store(&header->op_fields, torch_fields(live->torch) | python_fields(live->python));
  store(&header->state, GPUTAP_AGENT_STATE_CONFIGURED);
  return 0;
}

void sync_gc(bool on) {
  gc_pauses_want(on);
  if (gc_pauses_are_in_sync() || !python_api_find(g_live->python.version)) return;
  if (python_submit(kSyncGc)) python_wait(kSyncGc, kGcWaitNs);
}

int32_t start(Live *live) {
  gputap_control_header *header = live->header;
  if (window_is_open()) return -EBUSY_;
  if (header->state != GPUTAP_AGENT_STATE_CONFIGURED || header->mode > GPUTAP_CAPTURE_MODE_FULL) {
    session_say("START needs CONFIGURE before it, and a mode");
    return -EINVAL_;
  }
  session_say("");
  record_function_want_inputs(header->want_shapes && (header->op_fields & GPUTAP_OP_FIELD_SHAPES));
  if (header->want_gc) {
    sync_gc(true);
    if (!gc_pauses_are_in_sync()) session_say("garbage collections: Python did not answer in time");
  }
  window_open(live);
  collective_calls_look_after(true);
  return 0;
}

void close_window(Live *live, gputap_stop_reason reason) {
  if (!window_is_open()) return;
  window_close(live, reason);
  collective_calls_look_after(false);
  // After the window, so that its last kernels are in; what CUPTI still has comes after that.
  device_want(live, false);
  sync_gc(false);
}

void answer(gputap_control_header *header, int32_t status) {
  uint32_t length = 0;
  if (!status) {
    const PythonText &answer = python_answer();
    status = answer.status;
    length = answer.length < header->result_capacity ? answer.length : header->result_capacity;
    if (length) __builtin_memcpy((char *)header + header->result_offset, answer.text, length);
  }
  header->result_length = length;
  header->result_status = status;
  g.answering = false;
  acknowledge(header, 0);
}

// Answers later, from `python_turn`. Non-zero: refused at once.
int32_t run_python(Live *live) {
  gputap_control_header *header = live->header;
  uint32_t length = load(&header->request_length);
  if (length > header->request_capacity) return -E2BIG_;
  if (!python_is_done(kRunSource)) {
    session_say("Python is still busy with an earlier request");
    return -EBUSY_;
  }
  g.answering = true;
  g.answer_deadline_ns = sys::monotonic_ns() + (int64_t)header->request_timeout_ms * 1000000;
  if (!python_api_find(live->python.version) || !python_is_up()) {
    answer(header, -EOPNOTSUPP_);
    return 0;
  }
  if (!python_set_source((char *)header + header->request_offset, length) ||
      !python_submit(kRunSource)) {
    g.answering = false;
    return -ENOMEM_;
  }
  return 0;
}

int32_t sample_python(Live *live) {
  gputap_control_header *header = live->header;
  uint32_t length = load(&header->request_length);
  if (length > header->request_capacity) return -E2BIG_;
  if (!python_api_find(live->python.version)) return -EOPNOTSUPP_;
  const char *source = (const char *)header + header->request_offset;
  return python_samples_set(source, length, (int64_t)header->sample_period_ms * 1000000);
}

void python_turn(gputap_control_header *header) {
  if (!g.answering) return;
  if (python_is_done(kRunSource))
    answer(header, 0);
  else if (sys::monotonic_ns() >= g.answer_deadline_ns)
    answer(header, -ETIMEDOUT_);
}

void obey(Live *live) {
  gputap_control_header *header = live->header;
  uint32_t seq = load_acquire(&header->command_seq);
  if (seq == g.command_seq) return;
  g.command_seq = seq;
  g.answering = false;
  g.heard_ns = sys::monotonic_ns();
  int32_t status = 0;
  switch (header->command) {
    case GPUTAP_COMMAND_CONFIGURE:
      status = configure(live);
      break;
    case GPUTAP_COMMAND_START:
      status = start(live);
      break;
    case GPUTAP_COMMAND_STOP:
      close_window(live, GPUTAP_STOP_REASON_ASKED);
      break;
    case GPUTAP_COMMAND_RUN_PYTHON:
      status = run_python(live);
      if (!status) return;
      break;
    case GPUTAP_COMMAND_SAMPLE_PYTHON:
      status = sample_python(live);
      break;
    case GPUTAP_COMMAND_DEVICE_ON:
      status = device_want(live, true);
      break;
    case GPUTAP_COMMAND_DEVICE_OFF:
      device_want(live, false);
      break;
    case GPUTAP_COMMAND_DETACH:
      g.ending = true; /* acknowledged when everything is undone */
      return;
    default:
      session_say("unknown command");
      status = -EINVAL_;
  }
  acknowledge(header, status);
}

// --------------------------------------------------------------------------------- housekeeping

void put_clock_sample(gputap_control_header *header, const gputap_clock_sample &sample) {
  put_round(header, header->clock_offset, header->clock_capacity, &header->clock_count, sample);
}

// A sample from before the first one of this session, so that gputap knows the rate from the
// beginning: the process's first, or what it would have been a second ago where that is hours old.
gputap_clock_sample earlier_sample() {
  if (sys::monotonic_ns() - g_clock.first.mono_ns < kRecentNs) return g_clock.first;
  gputap_clock_sample sample = clock_sample();
  sample.ticks -= ns_to_ticks(kSecondNs);
  sample.mono_ns -= kSecondNs;
  sample.unix_ns -= kSecondNs;
  return sample;
}

void take_clock_sample(gputap_control_header *header) {
  gputap_clock_sample sample = clock_sample();
  clock_learn(sample);
  put_clock_sample(header, sample);
}

void round_of_housekeeping(Live *live, int64_t now_ns) {
  if (now_ns - g.round_ns < kRoundNs) return;
  g.round_ns = now_ns;
  take_clock_sample(live->header);
  threads_recycle(live);
  rings_look_after(live);
  window_count(live);
  device_look_after(live);
  if (window_is_open()) collective_calls_look_after(true);
}

bool gputap_is_gone(int64_t now_ns) {
  if (load_acquire(&g_session.end_asked)) return true;
  // The lock cannot be asked for any more: commands are a sign of life too, and a window that ends by
  // itself is seen through.
  if (!session_has_descriptor()) {
    if (window_is_open() && g_live->header->window_ns) g.heard_ns = now_ns;
    return now_ns - g.heard_ns > kQuietNs;
  }
  if (session_is_locked()) {
    store_release(&g_session.lock_seen, 1);
    return false;
  }
  return g_session.lock_seen || now_ns - g.began_ns > kFirstLockNs;
}

int64_t sleep_ns() {
  int64_t sleep = window_is_open() ? bursts_wait_ns() : kIdleNs;
  if (g.answering) {
    int64_t left = g.answer_deadline_ns - sys::monotonic_ns();
    if (left < sleep) sleep = left > 0 ? left : 0;
  }
  return sleep;
}

void end_session(Live *live, bool gone) {
  gputap_control_header *header = live->header;
  bool device_is_out = device_shut_down(live, kDeviceNs);
  bool drained = window_close(
      live, gone ? GPUTAP_STOP_REASON_GPUTAP_GONE : GPUTAP_STOP_REASON_ASKED);
  drained = drained && device_is_out;
  collective_calls_look_after(false);
  record_function_remove();
  sync_gc(false);
  python_samples_end();
  python_wake_on_done(nullptr);
  python_quit();
  if (gone) store(&header->stop_reason, GPUTAP_STOP_REASON_GPUTAP_GONE);
  store_release(&header->state, gone ? GPUTAP_AGENT_STATE_IDLE : GPUTAP_AGENT_STATE_DETACHED);
  if (!gone) acknowledge(header, 0);
  session_close(drained);
}

bool turn(Live *live) {
  gputap_control_header *header = live->header;
  int64_t now_ns = sys::monotonic_ns();
  if (gputap_is_gone(now_ns)) return false;
  add(&header->agent_ticks, 1u);
  if (window_is_due(live)) close_window(live, GPUTAP_STOP_REASON_DEADLINE);
  if (window_is_open()) {
    bursts_tick(live);
    rings_look_after(live);
  }
  python_turn(header);
  python_samples_turn(live);
  obey(live);
  round_of_housekeeping(live, now_ns);
  return !g.ending;
}

void *control_main(void *name) {
  host_name_thread((const char *)name);
  Live *live = g_live;
  if (g_clock.kind == GPUTAP_CLOCK_KIND_CPU_COUNTER)
    put_clock_sample(live->header, earlier_sample());
  take_clock_sample(live->header);
  python_wake_on_done(&live->header->command_seq);
  while (turn(live)) {
    // A finished Python job wakes the word without changing it; the look before the sleep closes
    // the gap.
    if (g.answering && python_is_done(kRunSource)) continue;
    sys::futex_wait(&live->header->command_seq, g.command_seq, sleep_ns());
  }
  store_release(&g_session.phase, kEnding);
  end_session(live, !g.ending);
  store_release(&g_session.phase, kDetached);
  sys::futex_wake(&g_session.phase);
  return nullptr;
}

}  // namespace

bool control_start() {
  g = {};
  g.began_ns = g.heard_ns = sys::monotonic_ns();
  // The thread takes its first clock sample by itself; one right behind it would tell no rate.
  g.round_ns = g.began_ns;
  return host_start_thread(control_main, "gputap");
}

bool control_end_session(long timeout_ns) {
  int64_t deadline = sys::monotonic_ns() + timeout_ns;
  store_release(&g_session.end_asked, 1);
  for (;;) {
    uint32_t phase = load_acquire(&g_session.phase);
    if (phase == kDetached) return true;
    int64_t left = deadline - sys::monotonic_ns();
    if (left <= 0) return false;
    sys::futex_wait(&g_session.phase, phase, left);
  }
}

}  // namespace gputap
