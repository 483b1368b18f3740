#include "collective_calls.h"

#include "call_event.h"
#include "clock.h"
#include "got.h"
#include "host.h"
#include "maps.h"
#include "text.h"

namespace gputap {

namespace {

// ncclResult_t, ncclDataType_t, ncclRedOp_t are ints; communicators and streams are pointers.
constexpr int kSuccess = 0, kInProgress = 7;
constexpr int kNone = -1;

typedef int (*AllReduce)(const void *, void *, size_t, int, int, void *, void *);
typedef int (*Reduce)(const void *, void *, size_t, int, int, int, void *, void *);
typedef int (*ReduceScatter)(const void *, void *, size_t, int, int, void *, void *);
typedef int (*AllGather)(const void *, void *, size_t, int, void *, void *);
typedef int (*Broadcast)(const void *, void *, size_t, int, int, void *, void *);
typedef int (*Bcast)(void *, size_t, int, int, void *, void *);
typedef int (*Send)(const void *, size_t, int, int, void *, void *);
typedef int (*Recv)(void *, size_t, int, int, void *, void *);
typedef int (*Group)();
typedef int (*OfCommunicator)(void *, int *);

struct Nccl {
  void *library;
  AllReduce all_reduce;
  Reduce reduce;
  ReduceScatter reduce_scatter;
  AllGather all_gather, all_to_all;
  Broadcast broadcast, gather, scatter;
  Bcast bcast;
  Send send;
  Recv recv;
  Group group_end;
  OfCommunicator count, rank, device;
};

Nccl nccl;

struct Wanted {
  const char *name;
  void *slot;
};

const Wanted kWanted[] = {
    {"ncclAllReduce", &nccl.all_reduce},
    {"ncclReduce", &nccl.reduce},
    {"ncclReduceScatter", &nccl.reduce_scatter},
    {"ncclAllGather", &nccl.all_gather},
    {"ncclAlltoAll", &nccl.all_to_all}, /* this and the next two since 2.28 */
    {"ncclGather", &nccl.gather},
    {"ncclScatter", &nccl.scatter},
    {"ncclBroadcast", &nccl.broadcast},
    {"ncclBcast", &nccl.bcast},
    {"ncclSend", &nccl.send},
    {"ncclRecv", &nccl.recv},
    {"ncclGroupEnd", &nccl.group_end},
    {"ncclCommCount", &nccl.count},
    {"ncclCommUserRank", &nccl.rank},
    {"ncclCommCuDevice", &nccl.device},
};

struct Arguments {
  const char *function;
  size_t count;
  int type, reduction, peer; /* peer: or root; kNone where there is none */
  void *communicator, *stream;
};

int ask(OfCommunicator question, void *communicator) {
  int answer = kNone;
  if (!question || question(communicator, &answer) != kSuccess) return kNone;
  return answer;
}

// {"count":8,"type":7,...}: the reader knows the numbers.
size_t describe(const Arguments &call, int result, char *buffer, size_t capacity) {
  // A communicator is asked only where NCCL has just accepted it.
  bool good = call.communicator && (result == kSuccess || result == kInProgress);
  Text text(buffer, capacity);
  text << "{\"count\":" << (int64_t)call.count << ",\"type\":" << (int64_t)call.type
       << ",\"reduction\":" << (int64_t)call.reduction << ",\"peer\":" << (int64_t)call.peer
       << ",\"comm\":" << (int64_t)call.communicator << ",\"stream\":" << (int64_t)call.stream
       << ",\"rank\":" << (int64_t)(good ? ask(nccl.rank, call.communicator) : kNone)
       << ",\"size\":" << (int64_t)(good ? ask(nccl.count, call.communicator) : kNone)
       << ",\"device\":" << (int64_t)(good ? ask(nccl.device, call.communicator) : kNone)
       << ",\"result\":" << (int64_t)result << "}";
  return text.length();
}

int end(uint64_t start, const Arguments &call, int result) {
  if (!start) return result;
  CallEvent event = {GPUTAP_EVENT_KIND_NCCL_API, call.function, start, now_ticks(), 0, nullptr, 0};
  char buffer[384];
  bool is_group = call.type == kNone;
  if (!is_group) {
    event.arguments = buffer;
    event.arguments_length = describe(call, result, buffer, sizeof buffer);
  }
  call_event_write(event);
  return result;
}

// ------------------------------------------------------------------------- in place of NCCL's own

int hook_all_reduce(const void *from, void *to, size_t count, int type, int reduction,
                    void *communicator, void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclAllReduce", count, type, reduction, kNone, communicator, stream},
             nccl.all_reduce(from, to, count, type, reduction, communicator, stream));
}

int hook_reduce(const void *from, void *to, size_t count, int type, int reduction, int root,
                void *communicator, void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclReduce", count, type, reduction, root, communicator, stream},
             nccl.reduce(from, to, count, type, reduction, root, communicator, stream));
}

int hook_reduce_scatter(const void *from, void *to, size_t count, int type, int reduction,
                        void *communicator, void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclReduceScatter", count, type, reduction, kNone, communicator, stream},
             nccl.reduce_scatter(from, to, count, type, reduction, communicator, stream));
}

int hook_all_gather(const void *from, void *to, size_t count, int type, void *communicator,
                    void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclAllGather", count, type, kNone, kNone, communicator, stream},
             nccl.all_gather(from, to, count, type, communicator, stream));
}

int hook_all_to_all(const void *from, void *to, size_t count, int type, void *communicator,
                    void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclAlltoAll", count, type, kNone, kNone, communicator, stream},
             nccl.all_to_all(from, to, count, type, communicator, stream));
}

int hook_gather(const void *from, void *to, size_t count, int type, int root, void *communicator,
                void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclGather", count, type, kNone, root, communicator, stream},
             nccl.gather(from, to, count, type, root, communicator, stream));
}

int hook_scatter(const void *from, void *to, size_t count, int type, int root, void *communicator,
                 void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclScatter", count, type, kNone, root, communicator, stream},
             nccl.scatter(from, to, count, type, root, communicator, stream));
}

int hook_broadcast(const void *from, void *to, size_t count, int type, int root,
                   void *communicator, void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclBroadcast", count, type, kNone, root, communicator, stream},
             nccl.broadcast(from, to, count, type, root, communicator, stream));
}

int hook_bcast(void *buffer, size_t count, int type, int root, void *communicator, void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclBcast", count, type, kNone, root, communicator, stream},
             nccl.bcast(buffer, count, type, root, communicator, stream));
}

int hook_send(const void *from, size_t count, int type, int peer, void *communicator,
              void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclSend", count, type, kNone, peer, communicator, stream},
             nccl.send(from, count, type, peer, communicator, stream));
}

int hook_recv(void *to, size_t count, int type, int peer, void *communicator, void *stream) {
  uint64_t start = call_event_begin();
  return end(start, {"ncclRecv", count, type, kNone, peer, communicator, stream},
             nccl.recv(to, count, type, peer, communicator, stream));
}

int hook_group_end() {
  uint64_t start = call_event_begin();
  return end(start, {"ncclGroupEnd", 0, kNone, kNone, kNone, nullptr, nullptr}, nccl.group_end());
}

const GotHook kHooks[] = {
    {"ncclAllReduce", (void *)hook_all_reduce},
    {"ncclReduce", (void *)hook_reduce},
    {"ncclReduceScatter", (void *)hook_reduce_scatter},
    {"ncclAllGather", (void *)hook_all_gather},
    {"ncclAlltoAll", (void *)hook_all_to_all},
    {"ncclGather", (void *)hook_gather},
    {"ncclScatter", (void *)hook_scatter},
    {"ncclBroadcast", (void *)hook_broadcast},
    {"ncclBcast", (void *)hook_bcast},
    {"ncclSend", (void *)hook_send},
    {"ncclRecv", (void *)hook_recv},
    {"ncclGroupEnd", (void *)hook_group_end},
};

// ---------------------------------------------------------------------------------------- hooking

void *real(const char *symbol) {
  size_t length = __builtin_strlen(symbol);
  for (const Wanted &wanted : kWanted)
    if (__builtin_strlen(wanted.name) == length && text_starts(symbol, length, wanted.name))
      return *(void **)wanted.slot;
  return nullptr;
}

// Torch tells of its own calls. One that leads to another copy of NCCL must go on leading there.
bool may_hook(const GotPatch &patch) {
  void *ours = real(patch.hook->symbol);
  return ours && !patch.of_torch && (patch.slot.original == ours || patch.is_stub);
}

GotHooks hooks = {kHooks, sizeof kHooks / sizeof *kHooks, may_hook, {}, 0, 0, 0};

bool is_nccl(const Mapping &mapping, void *) { return is_mapping_of(mapping, "libnccl.so"); }

// Looked for where the list of libraries has changed, and the loader asked only where it is mapped:
// while somebody else loads a library, that waits.
bool find_nccl() {
  static uint64_t generation;
  if (nccl.library) return true;
  if (!got_libraries_changed(&generation) || !maps_find(is_nccl, nullptr)) return false;
  void *library = host_loaded_library("libnccl.so.2", "libnccl.so");
  if (!library) return false;
  for (const Wanted &wanted : kWanted) *(void **)wanted.slot = g_host.dlsym(library, wanted.name);
  nccl.library = library;
  return true;
}

}  // namespace

void collective_calls_look_after(bool wanted) {
  if (wanted && find_nccl())
    got_keep(&hooks, (const void *)nccl.all_reduce);
  else if (!wanted && hooks.count)
    got_give_up(&hooks, (const void *)nccl.all_reduce);
}

void collective_calls_forget_after_fork() { got_forget(&hooks); }

}  // namespace gputap
