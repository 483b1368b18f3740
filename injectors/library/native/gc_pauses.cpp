#include "gc_pauses.h"

#include "intern.h"
#include "python_api.h"
#include "ring.h"

namespace gputap {

namespace {

uint32_t wanted, installed;
PyObject *callback_object;

uint32_t generation_name(Live *live, ThreadState *thread, uint32_t generation) {
  char buffer[32];
  Text text(buffer, sizeof buffer);
  text << "gc generation " << (int64_t)generation;
  return intern_cached(live, thread, buffer, text.length()).id;
}

void pause_ended(Live *live, ThreadState *thread, uint64_t end_ticks) {
  if (!thread->gc_start_ticks) return;
  gputap_event_record *record = ring_reserve(thread, live);
  if (record) {
    *record = {};
    record->start_ticks = thread->gc_start_ticks;
    record->end_ticks = end_ticks;
    record->seq = thread->gc_generation;
    record->name_id = generation_name(live, thread, thread->gc_generation);
    record->tid = thread->tid;
    uint32_t depth = thread_depth(thread);
    record->depth = (uint16_t)(depth < 0xffff ? depth : 0xffff);
    record->kind = GPUTAP_EVENT_KIND_GC;
    record->flags = record->name_id ? GPUTAP_EVENT_FLAG_NO_STACK
                                    : GPUTAP_EVENT_FLAG_NO_STACK | GPUTAP_EVENT_FLAG_NAME_LOST;
    ring_publish(thread);
  }
  thread->gc_start_ticks = 0;
}

void pause(Live *live, bool starts, uint32_t generation) {
  uint64_t now = now_ticks();
  ThreadState *thread = thread_state();
  if (!thread) return;
  uint32_t window = callback_enter(thread, live);
  if (window) {
    if (window != thread->window) thread_enter_window(thread, live, 0);
    if (starts) {
      thread->gc_generation = generation;
      thread->gc_start_ticks = now;
    } else {
      pause_ended(live, thread, now);
    }
  }
  callback_leave(thread);
}

// gc calls it as callback("start" or "stop", {"generation": 2, ...}), with the GIL.
PyObject *on_collection(PyObject *, PyObject *arguments) {
  Live *live = g_live;
  if (load(&live->window) && live->want_gc) {
    PyObject *phase = g_python.tuple_get(arguments, 0);
    PyObject *info = phase ? g_python.tuple_get(arguments, 1) : nullptr;
    PyObject *number = info ? g_python.dict_get(info, "generation") : nullptr;
    PySize length = 0;
    const char *text = phase ? g_python.utf8(phase, &length) : nullptr;
    long generation = number ? g_python.long_value(number) : 0;
    g_python.error_clear();
    if (text) pause(live, text_starts(text, (size_t)length, "start"), (uint32_t)generation);
  }
  g_python.increase(g_python.none);
  return g_python.none;
}

PyMethod method = {"gputap_gc", on_collection, kMethodTakesTuple, nullptr};

bool install(PyObject *callbacks) {
  callback_object = g_python.function_new(&method, nullptr, nullptr);
  return callback_object && g_python.list_append(callbacks, callback_object) == 0;
}

// The job may have removed it itself, or cleared the list.
void remove(PyObject *callbacks) {
  for (PySize i = g_python.list_size(callbacks); i-- > 0;)
    if (g_python.list_get(callbacks, i) == callback_object) g_python.sequence_delete(callbacks, i);
  g_python.decrease(callback_object);
  callback_object = nullptr;
}

}  // namespace

void gc_pauses_want(bool on) { store_release(&wanted, on); }

bool gc_pauses_are_in_sync() { return load_acquire(&wanted) == load_acquire(&installed); }

void gc_pauses_sync() {
  if (gc_pauses_are_in_sync()) return;
  PyObject *gc = g_python.import("gc");
  PyObject *callbacks = gc ? g_python.get_attribute(gc, "callbacks") : nullptr;
  if (callbacks && load(&wanted)) {
    store_release(&installed, install(callbacks));
  } else if (callbacks) {
    remove(callbacks);
    store_release(&installed, 0);
  }
  g_python.error_clear();
  if (callbacks) g_python.decrease(callbacks);
  if (gc) g_python.decrease(gc);
}

}  // namespace gputap
