// Prints where the members of at::RecordFunction are. They are private, hence the define: the
// headers of the standard library come first, which must not see it.
#include <array>
#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>
#define private public
#define protected public
#include <ATen/record_function.h>
using at::RecordFunction;
#define AT(name, member) std::printf("%s %zu\n", name, offsetof(RecordFunction, member))
int main() {
  AT("thread_id", step_callbacks_.thread_id_);
  AT("scope", step_callbacks_.scope_);
  AT("seq", sequence_nr_);
  AT("forward_thread_id", fwd_thread_id_);
  AT("inputs", inputs_);
  // The variant's index: the byte after its storage that differs between its two states.
  alignas(8) unsigned char a[sizeof(RecordFunction::fn_)], b[sizeof a];
  __builtin_memset(a, 0, sizeof a);
  __builtin_memset(b, 0, sizeof b);
  using Name = decltype(RecordFunction::fn_);
  new (a) Name(std::in_place_index<0>);
  alignas(8) static char schema[8];
  new (b) Name(std::ref(*reinterpret_cast<const c10::FunctionSchema *>(schema)));
  for (size_t i = sizeof(std::string); i < sizeof a; ++i)
    if (a[i] == 0 && b[i] == 1) {
      std::printf("fn_index %zu\n", offsetof(RecordFunction, fn_) + i);
      break;
    }
  return 0;
}
