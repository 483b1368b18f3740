#include "torch_api.h"

#include "host.h"

namespace gputap {

TorchApi g_torch;

namespace {

struct Wanted {
  const char *name;
  void *slot;
  bool required;
};

const Wanted kWanted[] = {
    {"_ZN2at17addGlobalCallbackENS_22RecordFunctionCallbackE", &g_torch.add, true},
    {"_ZN2at14removeCallbackEm", &g_torch.remove, true},
    {"_ZN2at15disableCallbackEm", &g_torch.disable, true},
    {"_ZN2at16reenableCallbackEm", &g_torch.reenable, true},
    {"_ZNK2at14RecordFunction4nameEv", &g_torch.name, true},
    {"_ZNK2at14RecordFunction7isAsyncEv", &g_torch.is_async, false},
    {"_ZNK2at14RecordFunction10num_inputsEv", &g_torch.num_inputs, false},
    {"_ZN5torch8profiler4impl10inputTypesB5cxx11ERKN2at14RecordFunctionE", &g_torch.input_types,
     false},
    {"_ZdlPv", &g_torch.operator_delete, false},
};

}  // namespace

const char *torch_api_find() {
  // libtorch is loaded RTLD_LOCAL by Python, so the global scope does not have it.
  void *library = host_loaded_library("libtorch_cpu.so", "libtorch_cpu");
  if (!library) return "libtorch_cpu.so is not loaded in the target";
  g_torch.library = library;
  for (const Wanted &wanted : kWanted) {
    void *found = g_host.dlsym(library, wanted.name);
    if (!found && wanted.required) return wanted.name;
    *(void **)wanted.slot = found;
  }
  g_torch.input_sizes_flattens = true;
  g_torch.input_sizes =
      g_host.dlsym(library, "_ZN5torch8profiler4impl10inputSizesERKN2at14RecordFunctionEb");
  if (!g_torch.input_sizes) {
    g_torch.input_sizes_flattens = false;
    g_torch.input_sizes =
        g_host.dlsym(library, "_ZN5torch8profiler4impl10inputSizesERKN2at14RecordFunctionE");
  }
  return nullptr;
}

}  // namespace gputap
