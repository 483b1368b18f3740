#include "python_samples.h"

#include "clock.h"
#include "python_run.h"
#include "window.h"

namespace gputap {

namespace {

constexpr int64_t kLeastPeriodNs = 10000000, kLongestPauseNs = 10000000000;
constexpr int64_t kPatienceNs = 1000000000;
constexpr uint64_t kMostShare = 1000; /* Python gets so small a part of the time, as a divisor */

// A mapping of its own, so that it changes hands by one pointer.
struct Source {
  size_t bytes; /* of the mapping */
  uint32_t number;
  char text[];
};

struct Samples {
  // Control thread.
  uint64_t period_ticks;
  uint32_t used; /* ever */
  uint64_t overdue_ticks; /* then no step's end is waited for any more */

  // The boundary thread that moves `due_ticks` on asks for the sample.
  uint64_t due_ticks; /* 0: no window is open */
  uint64_t asked_ticks, asked_boundary;

  // From the control thread to the Python thread, which takes it when it comes to it.
  Source *next;
  uint32_t wanted; /* its number; 0: none, and what Python holds is to go */

  // Python thread, and the control thread once `ready` is 1.
  PyObject *code, *globals;
  uint32_t number; /* of the source of both, and of the sample */
  uint32_t failed; /* number of the source that raised: never again */
  gputap_python_sample sample;
  uint32_t ready;
};

Samples g;
uint32_t sources; /* ever set */

void free_source(Source *source) {
  if (source) sys::unmap(source, source->bytes);
}

Source *copy_source(const char *text, uint32_t length) {
  size_t bytes = sizeof(Source) + length + 1;
  Source *source = (Source *)sys::map_private(bytes);
  if (!source) return nullptr;
  source->bytes = bytes;
  if (++sources == 0) ++sources;
  source->number = sources;
  __builtin_memcpy(source->text, text, length);
  return source;
}

void drop_code() {
  python_drop_globals(g.globals);
  python_drop(g.code);
  g.globals = g.code = nullptr;
}

// Null, and why in the answer, if there is nothing to run.
PyObject *newest_code(PythonText *answer) {
  if (Source *source = exchange(&g.next, (Source *)nullptr)) {
    drop_code();
    g.number = source->number;
    g.code = python_compile(source->text, answer);
    g.globals = g.code ? python_new_globals() : nullptr;
    free_source(source);
  }
  return g.code;
}

// After a slow answer the next one is asked for later.
void bear_in_mind(uint64_t now, uint64_t took) {
  uint64_t due = load(&g.due_ticks), longest = ns_to_ticks(kLongestPauseNs);
  uint64_t pause = took * kMostShare < longest ? took * kMostShare : longest;
  if (due && now + pause > due) change(&g.due_ticks, due, now + pause);
}

void put(gputap_control_header *header) {
  put_round(header, header->samples_offset, header->samples_capacity, &header->samples_count,
            g.sample);
}

void note_asked(uint64_t now, uint64_t boundary) {
  store(&g.asked_ticks, now);
  store_release(&g.asked_boundary, boundary);
}

}  // namespace

int32_t python_samples_set(const char *text, uint32_t length, int64_t period_ns) {
  Source *source = length ? copy_source(text, length) : nullptr;
  if (length && !source) return -ENOMEM_;
  store(&g.due_ticks, 0);
  store(&g.period_ticks, ns_to_ticks(period_ns > kLeastPeriodNs ? period_ns : kLeastPeriodNs));
  free_source(exchange(&g.next, source));
  store_release(&g.wanted, source ? sources : 0);
  if (!length && g.used) python_submit(kSample);
  g.used = g.used || length;
  return 0;
}

void python_samples_boundary(uint64_t now, uint64_t boundary) {
  uint64_t due = load(&g.due_ticks);
  if (GPUTAP_LIKELY(!due || now < due)) return;
  if (!change(&g.due_ticks, due, now + load(&g.period_ticks))) return;
  note_asked(now, boundary);
  python_poke(kSample);
}

void python_samples_turn(Live *live) {
  uint64_t now = now_ticks(), due = load(&g.due_ticks), patience = ns_to_ticks(kPatienceNs);
  if (load_acquire(&g.ready)) {
    // One of a session before may come late.
    if (g.number == g.wanted) put(live->header);
    store_release(&g.ready, 0);
    g.overdue_ticks = now + patience;
  }
  if (!g.wanted || load(&g.failed) == g.wanted || !window_is_open()) {
    store(&g.due_ticks, 0);
    return;
  }
  // The first at once; later ones wait for a step's end, but not for ever.
  if (!due)
    store(&g.due_ticks, now + load(&g.period_ticks));
  else if (now < g.overdue_ticks || now < due)
    return;
  g.overdue_ticks = now + patience;
  note_asked(now, 0);
  python_submit(kSample);
}

void python_samples_end() { python_samples_set(nullptr, 0, 0); }

void python_samples_run() {
  uint32_t wanted = load_acquire(&g.wanted);
  if (!wanted) return drop_code();
  if (load_acquire(&g.ready) || g.failed == wanted) return;
  PythonText answer = {0, 0, (char *)g.sample.text, sizeof g.sample.text};
  g.sample.boundary = load_acquire(&g.asked_boundary);
  g.sample.wanted_ticks = load(&g.asked_ticks);
  g.sample.begin_ticks = now_ticks();
  if (newest_code(&answer)) python_evaluate(g.code, g.globals, &answer);
  g.sample.end_ticks = now_ticks();
  g.sample.status = answer.status;
  g.sample.length = answer.length;
  if (answer.status) store(&g.failed, g.number);
  bear_in_mind(g.sample.end_ticks, g.sample.end_ticks - g.sample.begin_ticks);
  store_release(&g.ready, 1);
}

void python_samples_forget_after_fork() {
  free_source(g.next);
  __builtin_memset(&g, 0, sizeof g);
}

}  // namespace gputap
