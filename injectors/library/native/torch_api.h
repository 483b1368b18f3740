// The few functions of libtorch_cpu that the agent calls, found by their mangled names. They are the
// same in every release from 2.0 on; structures are read by offsets that gputap hands over.
#ifndef GPUTAP_TORCH_API_H
#define GPUTAP_TORCH_API_H

#include <stddef.h>
#include <stdint.h>

namespace gputap {

struct Context;

// std::unique_ptr<at::ObserverContext>: the destructor makes the compiler return it the way C++ does,
// through a hidden pointer.
struct ContextPointer {
  Context *context;
  ContextPointer(Context *c) : context(c) {}
  ContextPointer(const ContextPointer &) = delete;
  ~ContextPointer() {}
};

enum Scope : uint8_t { kFunction = 0, kBackward = 1, kTorchScript = 2, kUserScope = 7, kScopes = 10 };

// at::RecordFunctionCallback.
struct RecordFunctionCallback {
  ContextPointer (*start)(const void *record_function);
  void (*end)(const void *record_function, Context *context);
  double sampling_probability;
  bool scopes[kScopes];
  bool needs_inputs, needs_outputs, needs_ids;
};
static_assert(sizeof(RecordFunctionCallback) == 40, "at::RecordFunctionCallback of torch 2.0-2.15");

struct Vector {
  char *begin, *end, *limit;
};

struct TorchApi {
  void *library; /* handle of libtorch_cpu */
  uint64_t (*add)(RecordFunctionCallback);
  void (*remove)(uint64_t);
  void (*disable)(uint64_t);
  void (*reenable)(uint64_t);
  const char *(*name)(const void *);
  bool (*is_async)(const void *);
  size_t (*num_inputs)(const void *);
  void *input_sizes; /* two signatures, see shapes.cpp */
  bool input_sizes_flattens;
  void *input_types;
  void (*operator_delete)(void *);
};

extern TorchApi g_torch;

// Finds the functions; null on success, else what is missing.
const char *torch_api_find();

}  // namespace gputap

#endif
