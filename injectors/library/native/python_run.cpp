#include "python_run.h"

#include "gc_pauses.h"
#include "host.h"
#include "python_api.h"
#include "python_check.h"
#include "python_samples.h"

namespace gputap {

namespace {

constexpr uint32_t kQuit = 1u << 30, kGone = 1u << 31; /* in `jobs`: the thread is to end, has ended */
constexpr uint32_t kAnswerBytes = 32 << 20;

uint32_t jobs = kGone;
uint32_t running; /* jobs that the thread has taken */
uint32_t finished_count;

char *source;
size_t source_bytes;
PythonText answer;

void run_source() {
  PyObject *code = python_compile(source, &answer);
  if (!code) return;
  PyObject *globals = python_new_globals();
  python_evaluate(code, globals, &answer);
  python_drop_globals(globals);
  python_drop(code);
}

void do_jobs(uint32_t wanted) {
  if (!python_is_up()) {
    if (wanted & kRunSource) python_answer_with(&answer, -EOPNOTSUPP_, "", 0);
    return;
  }
  int state = g_python.ensure();
  if (wanted & kCheckLayout) python_check_run();
  if (wanted & kSyncGc) gc_pauses_sync();
  if (wanted & kRunSource) run_source();
  if (wanted & kSample) python_samples_run();
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

bool python_poke(PythonJob job) {
  uint32_t old = load_acquire(&jobs);
  if ((old & (kGone | kQuit | (uint32_t)job)) || !change(&jobs, old, old | (uint32_t)job)) return false;
  sys::futex_wake(&jobs);
  return true;
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
  if (!answer.text) answer = {0, 0, (char *)sys::map_private(kAnswerBytes), kAnswerBytes};
  if (source) sys::unmap(source, source_bytes);
  source_bytes = length + 1;
  source = (char *)sys::map_private(source_bytes);
  if (!answer.text || !source) return false;
  __builtin_memcpy(source, text, length);
  return true;
}

const PythonText &python_answer() { return answer; }

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
  python_samples_forget_after_fork();
}

void python_wake_on_done(uint32_t *word) { store_release(&wake_word, word); }

}  // namespace gputap
