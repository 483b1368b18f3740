// Kernel launches: which kernels an operator starts on a GPU, and how long they take.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace simcuda {

// The element type as an Itanium mangled type, e.g. "f" or "N3c108BFloat16E".
struct ElementType {
  const char *mangled;
  int bytes;
  bool low;  // bfloat16 or half
};

struct OpFacts {
  std::string op;              // "add", "addmm", "_foreach_add": without overload and final underscore
  ElementType type{"f", 4, false};
  ElementType from{"f", 4, false};  // of a conversion
  int64_t numel = 0;           // of the largest tensor
  int64_t row = 0;             // the last dimension of the first tensor
  int64_t list = 0;            // length of the tensor lists of a foreach operator
  uint64_t bytes = 0;          // moved
  uint64_t flops = 0;          // of tensor cores; 0: bound by memory
  bool scalar = false;         // the second operand is a number
};

// Mangled names, in the order of their launch. Names that contain no "_Z" are not C++ (cuBLAS).
std::vector<std::string> kernel_names(const OpFacts &facts);

// On an H100: dense bf16 989 TFLOP/s, tf32 495, HBM 3.35 TB/s, at 60 %; SIMCUDA_SLOWDOWN multiplies it.
uint64_t kernel_duration_ns(const OpFacts &facts);

// Launches the kernels of `facts` on the current stream.
void launch(const OpFacts &facts);

}  // namespace simcuda
