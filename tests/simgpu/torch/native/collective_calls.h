// What the files of collectives share.
#pragma once

#include "process_group.h"

namespace simcuda {

ncclDataType_t type_of(const at::Tensor &tensor);

// Several calls of NCCL as one launch.
template <typename Body>
void grouped(Body body) {
  NCCL_CHECK(ncclGroupStart());
  body();
  NCCL_CHECK(ncclGroupEnd());
}

inline int64_t elements(const Tensors &tensors) {
  int64_t all = 0;
  for (const at::Tensor &tensor : tensors) all += tensor.numel();
  return all;
}

inline char *at_element(const at::Tensor &tensor, int64_t element) {
  return static_cast<char *>(tensor.data_ptr()) + element * tensor.itemsize();
}

}  // namespace simcuda
