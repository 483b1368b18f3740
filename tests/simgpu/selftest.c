/*
 * The core, and the libraries on it, from C: what Python's timing would hide, and what sanitizers
 * shall see. Run by tests/integration/test_simgpu.py; prints the name of each test that passed.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/copy.h"
#include "core/graph.h"
#include "core/kernel.h"
#include "core/simgpu.h"

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);          \
      exit(1);                                                                 \
    }                                                                          \
  } while (0)

enum { MOST_SEEN = 200000 };

static struct simgpu_operation seen[MOST_SEEN];
static size_t seen_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void on_operation(const struct simgpu_operation *operation) {
  pthread_mutex_lock(&lock);
  CHECK(seen_count < MOST_SEEN);
  seen[seen_count++] = *operation;
  pthread_mutex_unlock(&lock);
}

static uint32_t admit_all(void) { return 1; }
static unsigned depart(void) { return 0; }
static void arrive(unsigned ticket) { (void)ticket; }
static void ignore_call(struct simgpu_call *call) { (void)call; }
static void ignore_end(struct simgpu_call *call, int result, uint64_t end_ns) {
  (void)call, (void)result, (void)end_ns;
}
static void ignore_operation(const struct simgpu_operation *operation) { (void)operation; }
static void ignore_sync(const struct simgpu_sync *sync) { (void)sync; }
static void ignore_allocation(const struct simgpu_allocation *allocation) { (void)allocation; }
static void ignore_stream(uint32_t context, uint32_t id, int priority) {
  (void)context, (void)id, (void)priority;
}
static void ignore_context(uint32_t device, uint32_t context) { (void)device, (void)context; }

static const struct simgpu_observer observer = {
    .admit = admit_all,
    .depart = depart,
    .arrive = arrive,
    .enter = ignore_call,
    .leave = ignore_end,
    .operation = on_operation,
    .started = ignore_operation,
    .sync = ignore_sync,
    .allocation = ignore_allocation,
    .stream = ignore_stream,
    .context = ignore_context,
};

static struct simgpu_stream *new_stream(void) {
  struct simgpu_stream *stream;
  CHECK(simgpu_stream_create(SIMGPU_STREAM_NON_BLOCKING, 0, &stream) == SIMGPU_OK);
  return stream;
}

static const struct simgpu_operation *kernel(struct simgpu_stream *stream, const char *name,
                                             uint64_t duration_ns) {
  const struct simgpu_operation operation = {
      .kind = SIMGPU_KERNEL, .name = name, .grid = {1, 1, 1}, .block = {1, 1, 1}};
  if (duration_ns) simgpu_next_duration_ns(duration_ns);
  CHECK(simgpu_enqueue(stream, &operation) == SIMGPU_OK);
  return seen_count ? &seen[seen_count - 1] : NULL;
}

static const struct simgpu_operation *find(const char *name) {
  for (size_t i = 0; i < seen_count; i++) {
    if (seen[i].name && strcmp(seen[i].name, name) == 0) return &seen[i];
  }
  return NULL;
}

/* ---- open operations ---------------------------------------------------------------------- */

struct started {
  struct simgpu_open *open;
  uint64_t start_ns;
  unsigned times;
};

static void note_start(struct simgpu_open *open, void *state, uint64_t start_ns) {
  struct started *started = state;
  started->open = open;
  started->start_ns = start_ns;
  started->times++;
}

static struct simgpu_open *open_kernel(struct simgpu_stream *stream, const char *name,
                                       struct started *started) {
  const struct simgpu_operation operation = {
      .kind = SIMGPU_KERNEL, .name = name, .grid = {1, 1, 1}, .block = {1, 1, 1}};
  struct simgpu_open *open;
  CHECK(simgpu_enqueue_open(stream, &operation, note_start, started, &open) == SIMGPU_OK);
  return open;
}

static void work_behind_an_open_operation_waits(void) {
  struct simgpu_stream *stream = new_stream();
  struct started started = {0};
  uint8_t *device;
  uint8_t host[4] = {1, 2, 3, 4};
  CHECK(simgpu_memory_allocate(SIMGPU_MEMORY_DEVICE, 4, (void **)&device) == SIMGPU_OK);
  memset(device, 0, 4);
  CHECK(simgpu_memory_register(host, sizeof host) == SIMGPU_OK);
  open_kernel(stream, "open", &started);
  kernel(stream, "behind", 1000);
  const struct simgpu_rows to = {device, 4}, from = {host, 4};
  CHECK(simgpu_copy(to, from, 4, 1, SIMGPU_TO_DEVICE, false, stream) == SIMGPU_OK);
  CHECK(started.times == 1 && !find("behind") && device[0] == 0);
  CHECK(simgpu_stream_query(stream) == SIMGPU_NOT_READY);
  const uint64_t end_ns = started.start_ns + 5000000;
  simgpu_complete(started.open, end_ns);
  CHECK(device[3] == 4);
  CHECK(find("open")->end_ns == end_ns && find("behind")->start_ns >= end_ns);
  CHECK(simgpu_stream_synchronize(stream) == SIMGPU_OK && simgpu_now_ns() >= end_ns);
  CHECK(simgpu_memory_unregister(host) == SIMGPU_OK);
  CHECK(simgpu_memory_free(device) == SIMGPU_OK && simgpu_stream_destroy(stream) == SIMGPU_OK);
}

static void events_carry_open_ends_to_other_streams(void) {
  struct simgpu_stream *first = new_stream(), *second = new_stream();
  struct simgpu_event *event;
  struct started one = {0}, other = {0};
  CHECK(simgpu_event_create(0, &event) == SIMGPU_OK);
  open_kernel(first, "one", &one);
  CHECK(simgpu_event_record(event, first) == SIMGPU_OK);
  CHECK(simgpu_stream_wait_event(second, event) == SIMGPU_OK);
  CHECK(simgpu_event_destroy(event) == SIMGPU_OK); /* the wait stays */
  open_kernel(second, "other", &other);
  kernel(second, "last", 1000);
  CHECK(one.times == 1 && other.times == 0);
  simgpu_complete(one.open, one.start_ns + 1000);
  CHECK(other.times == 1 && other.start_ns >= one.start_ns + 1000 && !find("last"));
  CHECK(simgpu_stream_destroy(second) == SIMGPU_OK); /* its work runs on */
  simgpu_complete(other.open, other.start_ns + 1000);
  CHECK(find("last")->start_ns >= find("other")->end_ns);
  CHECK(simgpu_device_synchronize(0) == SIMGPU_OK && simgpu_stream_destroy(first) == SIMGPU_OK);
}

static void complete_at_once(struct simgpu_open *open, void *state, uint64_t start_ns) {
  ++*(unsigned *)state;
  simgpu_complete(open, start_ns + 10);
}

/* On the stack of one thread, 100,000 of them would not fit. */
static void a_long_chain_of_open_operations_takes_no_stack(void) {
  enum { LENGTH = 100000 };
  struct simgpu_stream *stream = new_stream();
  struct started gate = {0};
  unsigned times = 0;
  const struct simgpu_operation operation = {.kind = SIMGPU_KERNEL, .name = "link"};
  open_kernel(stream, "gate", &gate);
  for (int i = 0; i < LENGTH; i++) {
    CHECK(simgpu_enqueue_open(stream, &operation, complete_at_once, &times, NULL) == SIMGPU_OK);
  }
  CHECK(times == 0);
  simgpu_complete(gate.open, gate.start_ns + 1);
  CHECK(times == LENGTH);
  CHECK(simgpu_stream_synchronize(stream) == SIMGPU_OK);
  CHECK(simgpu_stream_destroy(stream) == SIMGPU_OK);
}

static void an_open_operation_may_be_given_up_before_it_starts(void) {
  struct simgpu_stream *stream = new_stream();
  struct started gate = {0}, never = {0};
  open_kernel(stream, "gate", &gate);
  struct simgpu_open *open = open_kernel(stream, "given up", &never);
  kernel(stream, "behind", 1000);
  simgpu_complete(open, simgpu_now_ns());
  simgpu_complete(gate.open, gate.start_ns + 1);
  CHECK(never.times == 0 && find("behind"));
  CHECK(simgpu_stream_synchronize(stream) == SIMGPU_OK);
  CHECK(simgpu_stream_destroy(stream) == SIMGPU_OK);
}

static void *complete_later(void *state) {
  struct started *started = state;
  simgpu_sleep_until(started->start_ns + 2000000);
  simgpu_complete(started->open, simgpu_now_ns());
  return NULL;
}

static void settling_waits_for_the_data_and_not_for_the_time(void) {
  struct simgpu_stream *stream = new_stream();
  struct started started = {0};
  pthread_t thread;
  open_kernel(stream, "open", &started);
  CHECK(pthread_create(&thread, NULL, complete_later, &started) == 0);
  const uint64_t long_ns = 3600ull * 1000000000;
  kernel(stream, "an hour", long_ns);
  simgpu_stream_settle(stream);
  CHECK(find("open") && find("an hour"));
  CHECK(simgpu_now_ns() < find("an hour")->end_ns);
  CHECK(pthread_join(thread, NULL) == 0);
}

/* ---- graphs ------------------------------------------------------------------------------- */

static void branches_of_a_graph_overlap_and_meet(void) {
  struct simgpu_stream *stream = new_stream();
  struct graph *graph;
  struct graph_exec *exec;
  struct graph_node *root, *left, *right, *end;
  struct simgpu_operation it = {.kind = SIMGPU_KERNEL, .name = "root", .duration_ns = 1000};
  CHECK(simgpu_graph_create(&graph) == SIMGPU_OK);
  CHECK(simgpu_graph_add(graph, &it, NULL, NULL, 0, &root) == SIMGPU_OK);
  it.name = "left";
  it.duration_ns = 5000;
  CHECK(simgpu_graph_add(graph, &it, NULL, &root, 1, &left) == SIMGPU_OK);
  it.name = "right";
  it.duration_ns = 3000;
  CHECK(simgpu_graph_add(graph, &it, NULL, &root, 1, &right) == SIMGPU_OK);
  struct graph_node *const both[] = {left, right};
  it.name = "end";
  CHECK(simgpu_graph_add(graph, &it, NULL, both, 2, &end) == SIMGPU_OK);
  CHECK(simgpu_graph_instantiate(graph, &exec) == SIMGPU_OK);
  CHECK(simgpu_graph_launch(exec, stream) == SIMGPU_OK);
  CHECK(simgpu_graph_exec_destroy(exec) == SIMGPU_OK && simgpu_graph_destroy(graph) == SIMGPU_OK);
  const uint64_t start_ns = find("root")->start_ns;
  CHECK(find("left")->start_ns == start_ns + 1000 && find("right")->start_ns == start_ns + 1000);
  CHECK(find("end")->start_ns == start_ns + 6000 && find("end")->end_ns == start_ns + 9000);
  CHECK(simgpu_stream_synchronize(stream) == SIMGPU_OK);
  CHECK(simgpu_stream_destroy(stream) == SIMGPU_OK);
}

static void a_cycle_is_no_graph(void) {
  struct graph *graph;
  struct graph_exec *exec;
  struct graph_node *one, *other;
  const struct simgpu_operation it = {.kind = SIMGPU_KERNEL, .name = "node"};
  CHECK(simgpu_graph_create(&graph) == SIMGPU_OK);
  CHECK(simgpu_graph_add(graph, &it, NULL, NULL, 0, &one) == SIMGPU_OK);
  CHECK(simgpu_graph_add(graph, &it, NULL, &one, 1, &other) == SIMGPU_OK);
  CHECK(simgpu_graph_add_dependencies(graph, &other, &one, 1) == SIMGPU_OK);
  CHECK(simgpu_graph_instantiate(graph, &exec) == SIMGPU_INVALID_VALUE);
  CHECK(simgpu_graph_destroy(graph) == SIMGPU_OK);
}

static unsigned submissions;
static void *submit(void *user) {
  submissions++;
  return user;
}

static void an_open_kernel_can_be_captured(void) {
  static const struct simgpu_open_kernel how = {submit, note_start};
  struct simgpu_stream *stream = new_stream();
  struct started started = {0};
  struct graph *graph;
  struct graph_exec *exec;
  CHECK(simgpu_capture_begin(stream) == SIMGPU_OK);
  simgpu_next_open(&how, &started);
  kernel(stream, "open", 0);
  kernel(stream, "behind", 1000);
  CHECK(simgpu_capture_end(stream, &graph) == SIMGPU_OK && submissions == 0);
  CHECK(simgpu_graph_instantiate(graph, &exec) == SIMGPU_OK);
  CHECK(simgpu_graph_launch(exec, stream) == SIMGPU_OK);
  CHECK(submissions == 1 && started.times == 1 && !find("behind"));
  simgpu_complete(started.open, started.start_ns + 10);
  CHECK(find("behind")->graph_id == simgpu_graph_exec_id(exec));
  CHECK(find("open")->graph_id == simgpu_graph_exec_id(exec));
  CHECK(simgpu_stream_synchronize(stream) == SIMGPU_OK);
  CHECK(simgpu_graph_exec_destroy(exec) == SIMGPU_OK && simgpu_graph_destroy(graph) == SIMGPU_OK);
  CHECK(simgpu_stream_destroy(stream) == SIMGPU_OK);
}

/* ---- memory, threads ---------------------------------------------------------------------- */

static void any_address_within_a_block_is_known(void) {
  void *blocks[64];
  for (int i = 0; i < 64; i++) {
    const size_t size = i % 8 == 7 ? 2 << 20 : 64;
    CHECK(simgpu_memory_allocate(SIMGPU_MEMORY_DEVICE, size, &blocks[i]) == SIMGPU_OK);
    const struct simgpu_memory memory = simgpu_memory_of((char *)blocks[i] + size - 1);
    CHECK(memory.base == blocks[i] && memory.size == size && memory.device == 0);
  }
  CHECK(simgpu_memory_of(&blocks).kind == SIMGPU_MEMORY_PAGEABLE);
  for (int i = 0; i < 64; i++) CHECK(simgpu_memory_free(blocks[i]) == SIMGPU_OK);
  CHECK(simgpu_memory_free(blocks[0]) == SIMGPU_INVALID_VALUE);
  struct simgpu_device_info info;
  CHECK(simgpu_device_info(0, &info) == SIMGPU_OK && info.memory_used == 0);
}

enum { THREADS = 4, ROUNDS = 3000 };

static void *use_streams(void *unused) {
  (void)unused;
  struct simgpu_stream *stream = new_stream();
  struct simgpu_event *event;
  CHECK(simgpu_event_create(0, &event) == SIMGPU_OK);
  for (int i = 0; i < ROUNDS; i++) {
    const struct simgpu_operation operation = {
        .kind = SIMGPU_KERNEL, .name = "busy", .duration_ns = 1};
    CHECK(simgpu_enqueue(stream, &operation) == SIMGPU_OK);
    if (i % 100 == 0) CHECK(simgpu_enqueue(simgpu_stream_of(NULL), &operation) == SIMGPU_OK);
    CHECK(simgpu_event_record(event, stream) == SIMGPU_OK);
    CHECK(simgpu_stream_wait_event(simgpu_stream_of((void *)2), event) == SIMGPU_OK);
  }
  CHECK(simgpu_event_synchronize(event) == SIMGPU_OK && simgpu_event_destroy(event) == SIMGPU_OK);
  CHECK(simgpu_stream_destroy(stream) == SIMGPU_OK);
  return NULL;
}

static void threads_do_not_lose_operations(void) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    CHECK(pthread_create(&threads[i], NULL, use_streams, NULL) == 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  CHECK(seen_count == THREADS * (ROUNDS + ROUNDS / 100));
}

static void count_up(void *user) { ++*(unsigned *)user; }

static void host_functions_run_once_each_in_order(void) {
  struct simgpu_stream *stream = new_stream();
  unsigned count = 0;
  for (int i = 0; i < 500; i++) {
    CHECK(simgpu_enqueue_host(stream, count_up, &count) == SIMGPU_OK);
  }
  CHECK(simgpu_stream_synchronize(stream) == SIMGPU_OK && count == 500);
  CHECK(simgpu_stream_destroy(stream) == SIMGPU_OK);
}

static const struct {
  const char *name;
  void (*run)(void);
} TESTS[] = {
#define TEST(name) {#name, name}
    TEST(work_behind_an_open_operation_waits),
    TEST(events_carry_open_ends_to_other_streams),
    TEST(a_long_chain_of_open_operations_takes_no_stack),
    TEST(an_open_operation_may_be_given_up_before_it_starts),
    TEST(settling_waits_for_the_data_and_not_for_the_time),
    TEST(branches_of_a_graph_overlap_and_meet),
    TEST(a_cycle_is_no_graph),
    TEST(an_open_kernel_can_be_captured),
    TEST(any_address_within_a_block_is_known),
    TEST(threads_do_not_lose_operations),
    TEST(host_functions_run_once_each_in_order),
};

int main(int count, char **arguments) {
  CHECK(simgpu_initialize() == SIMGPU_OK);
  simgpu_observe(&observer);
  for (size_t i = 0; i < sizeof TESTS / sizeof *TESTS; i++) {
    if (count > 1 && strcmp(arguments[1], TESTS[i].name) != 0) continue;
    seen_count = 0;
    TESTS[i].run();
    printf("%s\n", TESTS[i].name);
  }
  return 0;
}
