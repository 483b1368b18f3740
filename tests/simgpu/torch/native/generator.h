#pragma once

#include <ATen/core/Generator.h>

namespace simcuda {

// The CPU generator whose numbers a generator of the device gives.
at::Generator host_generator(const at::Generator &generator);

}  // namespace simcuda
