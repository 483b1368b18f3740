/*
 * nccl_selftest RANKS processes|threads: every collective with every type and operator, what is
 * sent and received, splits, late ranks and aborts, checked against sums done here. Built with
 * sanitizers.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../core/simgpu.h"
#include "abi.h"
#include "half.h"
#include "reduce.h"

enum { MOST = 8, LONG = 300000, SHORT = 1001 };

struct world {
  int rank, ranks;
  bool in_threads;
  nccl_unique_id id;
  nccl_comm comm;
  struct simgpu_stream *stream;
  uint8_t *from, *to;
};

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: rank %d of %d: %s (%s)\n", __FILE__, __LINE__, world->rank,          \
              world->ranks, #condition, ncclGetLastError(NULL));                                   \
      _exit(1);                                                                                    \
    }                                                                                              \
  } while (0)

#define CHECK_OK(call) CHECK((call) == NCCL_SUCCESS)

static void put(nccl_type type, void *array, size_t i, double value) {
  uint8_t *at = (uint8_t *)array + i * reduce_type_size(type);
  const int64_t whole = (int64_t)value;
  const float single = (float)value;
  const uint16_t half = type == NCCL_BFLOAT16 ? float_to_bfloat16(single) : float_to_half(single);
  const void *bytes = type == NCCL_FLOAT64                            ? (const void *)&value
                      : type == NCCL_FLOAT32                          ? (const void *)&single
                      : type == NCCL_FLOAT16 || type == NCCL_BFLOAT16 ? (const void *)&half
                                                                      : (const void *)&whole;
  memcpy(at, bytes, reduce_type_size(type));
}

/* Small enough to be exact in every type, whatever is done with them. */
static double value(int rank, size_t i) { return 1 + (double)((rank + i) % 2); }

static double combine(nccl_op op, double a, double b) {
  switch (op) {
  case NCCL_PROD:
    return a * b;
  case NCCL_MAX:
    return a > b ? a : b;
  case NCCL_MIN:
    return a < b ? a : b;
  default:
    return a + b;
  }
}

static double reduced(const struct world *world, nccl_type type, nccl_op op, size_t i) {
  double result = value(0, i);
  for (int rank = 1; rank < world->ranks; rank++) {
    result = combine(op, result, value(rank, i));
  }
  if (op == NCCL_AVG) {
    result /= world->ranks;
    return type <= NCCL_UINT64 ? (double)(int64_t)result : result;
  }
  return op == NCCL_OP_COUNT ? result * 2 : result; /* the one that ranks make below */
}

static void fill(struct world *world, nccl_type type, size_t count) {
  for (size_t i = 0; i < count; i++) {
    put(type, world->from, i, value(world->rank, i));
  }
  memset(world->to, 0xee, count * reduce_type_size(type) * (size_t)world->ranks);
}

static void check_value(const struct world *world, nccl_type type, size_t at, double expected) {
  uint8_t bytes[8];
  put(type, bytes, 0, expected);
  const size_t size = reduce_type_size(type);
  CHECK(memcmp(world->to + at * size, bytes, size) == 0);
}

static void synchronize(const struct world *world) {
  CHECK(simgpu_stream_synchronize(world->stream) == SIMGPU_OK);
}

static void check_reductions(struct world *world, nccl_type type, nccl_op op, size_t count) {
  const size_t each = count / (size_t)world->ranks, first = each * (size_t)world->rank;
  fill(world, type, count);
  CHECK_OK(ncclAllReduce(world->from, world->to, count, type, op, world->comm, world->stream));
  synchronize(world);
  for (size_t i = 0; i < count; i++) {
    check_value(world, type, i, reduced(world, type, op, i));
  }
  const int root = world->ranks - 1;
  fill(world, type, count);
  CHECK_OK(ncclReduce(world->from, world->to, count, type, op, root, world->comm, world->stream));
  synchronize(world);
  for (size_t i = 0; i < count && world->rank == root; i++) {
    check_value(world, type, i, reduced(world, type, op, i));
  }
  fill(world, type, count);
  CHECK_OK(ncclReduceScatter(world->from, world->to, each, type, op, world->comm, world->stream));
  synchronize(world);
  for (size_t i = 0; i < each; i++) {
    check_value(world, type, i, reduced(world, type, op, first + i));
  }
}

static void check_moves(struct world *world, nccl_type type, size_t count) {
  const size_t each = count / (size_t)world->ranks, first = each * (size_t)world->rank;
  fill(world, type, count);
  CHECK_OK(ncclAllGather(world->from, world->to, each, type, world->comm, world->stream));
  synchronize(world);
  for (int rank = 0; rank < world->ranks; rank++) {
    for (size_t i = 0; i < each; i++) {
      check_value(world, type, each * (size_t)rank + i, value(rank, i));
    }
  }
  fill(world, type, count);
  CHECK_OK(ncclBroadcast(world->from, world->to, count, type, 1, world->comm, world->stream));
  synchronize(world);
  for (size_t i = 0; i < count; i++) {
    check_value(world, type, i, value(1, i));
  }
  fill(world, type, count);
  CHECK_OK(ncclAlltoAll(world->from, world->to, each, type, world->comm, world->stream));
  synchronize(world);
  for (int rank = 0; rank < world->ranks; rank++) {
    for (size_t i = 0; i < each; i++) {
      check_value(world, type, each * (size_t)rank + i, value(rank, first + i));
    }
  }
  fill(world, type, count);
  CHECK_OK(ncclScatter(world->from, world->to, each, type, 0, world->comm, world->stream));
  synchronize(world);
  for (size_t i = 0; i < each; i++) {
    check_value(world, type, i, value(0, first + i));
  }
  fill(world, type, count);
  CHECK_OK(ncclGather(world->from, world->to, each, type, 0, world->comm, world->stream));
  synchronize(world);
  for (size_t i = 0; i < count && world->rank == 0; i++) {
    check_value(world, type, i, value((int)(i / each), i % each));
  }
}

/* Everybody with everybody, itself included; more than a mailbox holds; two messages each. */
static void check_transfers(struct world *world, size_t count) {
  fill(world, NCCL_FLOAT32, 2 * count);
  CHECK_OK(ncclGroupStart());
  for (int peer = 0; peer < world->ranks; peer++) {
    for (size_t part = 0; part < 2; part++) {
      const size_t at = part * count * 4;
      uint8_t *to = world->to + (size_t)peer * count * 8;
      CHECK_OK(ncclRecv(to + at, count, NCCL_FLOAT32, peer, world->comm, world->stream));
      CHECK_OK(ncclSend(world->from + at, count, NCCL_FLOAT32, peer, world->comm, world->stream));
    }
  }
  CHECK_OK(ncclGroupEnd());
  synchronize(world);
  for (int peer = 0; peer < world->ranks; peer++) {
    for (size_t i = 0; i < 2 * count; i++) {
      check_value(world, NCCL_FLOAT32, (size_t)peer * count * 2 + i, value(peer, i));
    }
  }
}

/* A group on two streams, in place, many launches in flight. */
static void check_groups(struct world *world) {
  struct simgpu_stream *other;
  CHECK(simgpu_stream_create(SIMGPU_STREAM_NON_BLOCKING, 0, &other) == SIMGPU_OK);
  fill(world, NCCL_INT32, SHORT);
  fill(world, NCCL_INT32, SHORT);
  memset(world->to, 0, LONG);
  for (int i = 0; i < 100; i++) {
    CHECK_OK(ncclGroupStart());
    CHECK_OK(ncclAllReduce(world->from, world->to, SHORT, NCCL_INT32, NCCL_SUM, world->comm,
                           world->stream));
    CHECK_OK(ncclBroadcast(world->from, world->to + 4 * SHORT, SHORT, NCCL_INT32, 0, world->comm,
                           i % 2 ? other : world->stream));
    CHECK_OK(ncclGroupEnd());
    CHECK_OK(ncclAllReduce(world->to, world->to, 1, NCCL_INT32, NCCL_MAX, world->comm,
                           i % 3 ? other : world->stream));
  }
  synchronize(world);
  CHECK(simgpu_stream_synchronize(other) == SIMGPU_OK);
  for (size_t i = 0; i < SHORT; i++) {
    check_value(world, NCCL_INT32, i, reduced(world, NCCL_INT32, NCCL_SUM, i));
    check_value(world, NCCL_INT32, SHORT + i, value(0, i));
  }
  simgpu_stream_destroy(other);
}

/* Even and odd ranks, in reverse order. */
static void check_split(struct world *world) {
  nccl_comm half = NULL, none = world->comm;
  int ranks, rank;
  const int wanted = (world->ranks + 1 - world->rank % 2) / 2;
  CHECK_OK(ncclCommSplit(world->comm, world->rank % 2, -world->rank, &half, NULL));
  CHECK_OK(ncclCommCount(half, &ranks));
  CHECK_OK(ncclCommUserRank(half, &rank));
  CHECK(ranks == wanted && rank == wanted - 1 - world->rank / 2);
  fill(world, NCCL_INT64, SHORT);
  CHECK_OK(ncclAllReduce(world->from, world->to, SHORT, NCCL_INT64, NCCL_SUM, half, world->stream));
  synchronize(world);
  check_value(world, NCCL_INT64, 0, (double)ranks * value(world->rank, 0));
  CHECK_OK(ncclCommDestroy(half));
  CHECK_OK(ncclCommSplit(world->comm, NCCL_SPLIT_NOCOLOR, 0, &none, NULL));
  CHECK(!none);
}

/* ---- aborts ------------------------------------------------------------------------------ */

struct splitter {
  nccl_comm comm;
  atomic_int tid;
};

static void *split_alone(void *argument) {
  struct splitter *splitter = argument;
  nccl_comm made;
  atomic_store(&splitter->tid, (int)syscall(SYS_gettid));
  return (void *)(intptr_t)ncclCommSplit(splitter->comm, 0, 0, &made, NULL);
}

/* Nothing else in such a thread waits for a futex. */
static bool waits_for_a_futex(int tid) {
  char path[64];
  long number = -1;
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
  FILE *file = fopen(path, "re");
  if (file) {
    if (fscanf(file, "%ld", &number) != 1) {
      number = -1; /* it runs */
    }
    fclose(file);
  }
  return number == SYS_futex;
}

/* The last rank never splits; another thread of each other rank gives up for it. */
static void check_abort_in_split(struct world *world) {
  struct splitter splitter = {0};
  pthread_t thread;
  void *result = (void *)(intptr_t)NCCL_INTERNAL_ERROR;
  CHECK_OK(ncclCommSplit(world->comm, 0, 0, &splitter.comm, NULL));
  const bool splits = world->rank < world->ranks - 1;
  if (splits) {
    pthread_create(&thread, NULL, split_alone, &splitter);
    while (!atomic_load(&splitter.tid) || !waits_for_a_futex(splitter.tid)) {
      sched_yield();
    }
  }
  CHECK_OK(ncclCommAbort(splitter.comm));
  if (splits) {
    pthread_join(thread, &result);
  }
  CHECK((intptr_t)result == NCCL_INTERNAL_ERROR);
}

/* The last rank never comes: the kernel runs until it is aborted, the stream goes on. */
static void check_abort(struct world *world) {
  if (world->rank < world->ranks - 1) {
    CHECK_OK(ncclAllReduce(world->from, world->to, SHORT, NCCL_FLOAT32, NCCL_SUM, world->comm,
                           world->stream));
    CHECK_OK(ncclAllReduce(world->from, world->to, SHORT, NCCL_FLOAT32, NCCL_SUM, world->comm,
                           world->stream));
    CHECK(simgpu_stream_query(world->stream) == SIMGPU_NOT_READY);
  }
  CHECK_OK(ncclCommAbort(world->comm));
  synchronize(world);
}

/* A third of something is rounded: that is not what this program looks at. */
static bool is_exact(const struct world *world, nccl_type type, nccl_op op) {
  return op != NCCL_AVG || type <= NCCL_UINT64 || (world->ranks & (world->ranks - 1)) == 0;
}

static void check_everything(struct world *world) {
  nccl_op twice;
  double two = 0;
  for (int type = 0; type < NCCL_TYPE_COUNT; type++) {
    for (int op = 0; op < NCCL_OP_COUNT && reduce_is_possible(type); op++) {
      if (is_exact(world, type, op)) {
        check_reductions(world, type, op, SHORT);
      }
    }
    if (reduce_is_possible(type)) {
      put(type, &two, 0, 2);
      CHECK_OK(ncclRedOpCreatePreMulSum(&twice, &two, type, NCCL_SCALAR_HOST, world->comm));
      check_reductions(world, type, twice, SHORT);
      CHECK_OK(ncclRedOpDestroy(twice, world->comm));
      check_moves(world, type, SHORT - SHORT % (size_t)world->ranks);
    }
  }
  check_reductions(world, NCCL_FLOAT32, NCCL_SUM, LONG);
  check_reductions(world, NCCL_BFLOAT16, NCCL_MAX, LONG);
  check_moves(world, NCCL_FLOAT64, LONG - LONG % world->ranks);
  check_transfers(world, LONG / 2);
  check_groups(world);
  check_split(world);
  check_abort_in_split(world);
  check_abort(world);
}

static void *run_rank(void *argument) {
  struct world *world = argument;
  const size_t bytes = (size_t)LONG * 8 * (size_t)world->ranks;
  CHECK(simgpu_initialize() == SIMGPU_OK);
  if (world->in_threads) {
    CHECK(simgpu_device_set_current(world->rank) == SIMGPU_OK);
  }
  CHECK_OK(ncclCommInitRank(&world->comm, world->ranks, world->id, world->rank));
  CHECK(simgpu_stream_create(SIMGPU_STREAM_NON_BLOCKING, 0, &world->stream) == SIMGPU_OK);
  CHECK_OK(ncclMemAlloc((void **)&world->from, bytes));
  CHECK_OK(ncclMemAlloc((void **)&world->to, bytes));
  check_everything(world);
  CHECK_OK(ncclMemFree(world->from));
  CHECK_OK(ncclMemFree(world->to));
  CHECK(simgpu_stream_destroy(world->stream) == SIMGPU_OK);
  return NULL;
}

static int run_threads(struct world *worlds, int ranks) {
  pthread_t threads[MOST];
  for (int rank = 0; rank < ranks; rank++) {
    pthread_create(&threads[rank], NULL, run_rank, &worlds[rank]);
  }
  for (int rank = 0; rank < ranks; rank++) {
    pthread_join(threads[rank], NULL);
  }
  return 0;
}

static int run_processes(struct world *worlds, int ranks) {
  int failed = 0, status;
  for (int rank = 0; rank < ranks; rank++) {
    if (fork() == 0) {
      run_rank(&worlds[rank]);
      exit(0);
    }
  }
  for (int rank = 0; rank < ranks; rank++) {
    wait(&status);
    failed |= status != 0;
  }
  return failed;
}

int main(int argc, char **argv) {
  struct world worlds[MOST] = {0};
  const int ranks = argc == 3 ? atoi(argv[1]) : 0;
  if (ranks < 2 || ranks > MOST) {
    fprintf(stderr, "usage: nccl_selftest RANKS processes|threads\n");
    return 2;
  }
  const bool in_threads = strcmp(argv[2], "threads") == 0;
  nccl_unique_id id;
  ncclGetUniqueId(&id);
  for (int rank = 0; rank < ranks; rank++) {
    worlds[rank] = (struct world){.rank = rank, .ranks = ranks, .in_threads = in_threads, .id = id};
  }
  return in_threads ? run_threads(worlds, ranks) : run_processes(worlds, ranks);
}
