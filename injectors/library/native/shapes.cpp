#include "shapes.h"

#include "intern.h"
#include "torch_api.h"

namespace gputap {

namespace {

constexpr size_t kMostText = 2048;
constexpr size_t kRoomForOne = 256;

// std::vector<...> by value comes back through a hidden pointer, as it has a destructor.
struct Returned {
  Vector vector;
  ~Returned() {}
};

// std::string of the new ABI.
struct String {
  char *text;
  size_t length;
  char local[16];
};

Returned input_sizes(const void *record_function) {
  if (g_torch.input_sizes_flattens)
    return ((Returned(*)(const void *, bool))g_torch.input_sizes)(record_function, false);
  return ((Returned(*)(const void *))g_torch.input_sizes)(record_function);
}

void release(void *memory) {
  if (memory) g_torch.operator_delete(memory);
}

void write_shape(Text &json, const Vector &sizes) {
  json << "[";
  for (int64_t *at = (int64_t *)sizes.begin; at != (int64_t *)sizes.end; at++) {
    if (at != (int64_t *)sizes.begin) json << ",";
    json << *at;
  }
  json << "]";
}

// One entry for each input; those that are no tensors have an empty shape. A list too long for the
// text ends in null.
void write_inputs(Text &json, const Vector &sizes, const Vector &types) {
  size_t shapes = (size_t)(sizes.end - sizes.begin) / sizeof(Vector);
  size_t names = (size_t)(types.end - types.begin) / sizeof(String);
  json << "[";
  for (size_t i = 0; i < shapes; i++) {
    if (i) json << ",";
    if (json.room() < kRoomForOne) {
      json << "null";
      break;
    }
    json << "[";
    write_shape(json, ((Vector *)sizes.begin)[i]);
    json << ",\"";
    const String *type = (String *)types.begin + i;
    if (i < names && type->length < 64) json.bytes(type->text, type->length);
    json << "\"]";
  }
  json << "]";
}

void release_sizes(const Vector &sizes) {
  for (Vector *at = (Vector *)sizes.begin; at != (Vector *)sizes.end; at++) release(at->begin);
  release(sizes.begin);
}

void release_types(const Vector &types) {
  for (String *at = (String *)types.begin; at != (String *)types.end; at++)
    if (at->text != at->local) release(at->text);
  release(types.begin);
}

}  // namespace

uint32_t shapes_of(Live *live, ThreadState *thread, const void *record_function) {
  if (!g_torch.input_sizes || !g_torch.operator_delete || !g_torch.num_inputs) return 0;
  if (!g_torch.num_inputs(record_function)) return 0;
  Returned sizes = input_sizes(record_function);
  // Copy-on-write strings of the old ABI share memory with torch's own; their types are left out.
  Returned types = {{nullptr, nullptr, nullptr}};
  if (g_torch.input_types && live->torch.cxx11_abi == 1) {
    Returned got = ((Returned(*)(const void *))g_torch.input_types)(record_function);
    types.vector = got.vector;
  }
  char buffer[kMostText];
  Text json(buffer, sizeof buffer);
  write_inputs(json, sizes.vector, types.vector);
  bool any = sizes.vector.begin != sizes.vector.end;
  release_sizes(sizes.vector);
  release_types(types.vector);
  return any ? intern_cached(live, thread, buffer, json.length()).id : 0;
}

}  // namespace gputap
