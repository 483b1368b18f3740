#include "device_api.h"

#include "host.h"
#include "maps.h"

namespace gputap {

CuptiApi g_cupti;

namespace {

const char *const kNames[] = {"libcupti.so.13", "libcupti.so.12", "libcupti.so.11.8"};

struct Wanted {
  const char *name;
  void *slot;
  bool required;
};

const Wanted kWanted[] = {
    {"cuptiGetVersion", &g_cupti.get_version, true},
    {"cuptiSubscribe", &g_cupti.subscribe, true},
    {"cuptiUnsubscribe", &g_cupti.unsubscribe, true},
    {"cuptiEnableCallback", &g_cupti.enable_callback, true},
    {"cuptiActivityRegisterCallbacks", &g_cupti.register_callbacks, true},
    {"cuptiActivityEnable", &g_cupti.enable, true},
    {"cuptiActivityEnableAndDump", &g_cupti.enable_and_dump, true},
    {"cuptiActivityDisable", &g_cupti.disable, true},
    {"cuptiActivityFlushAll", &g_cupti.flush_all, true},
    {"cuptiActivityGetNextRecord", &g_cupti.next_record, true},
    {"cuptiActivityGetNumDroppedRecords", &g_cupti.dropped, true},
    {"cuptiActivitySetAttribute", &g_cupti.set_attribute, true},
    {"cuptiGetTimestamp", &g_cupti.timestamp, true},
    {"cuptiSetThreadIdType", &g_cupti.set_thread_ids, false},
    {"cuptiGetThreadIdType", &g_cupti.get_thread_ids, false},
    {"cuptiActivityEnableRuntimeApi", &g_cupti.enable_runtime_call, false},
    {"cuptiActivityEnableDriverApi", &g_cupti.enable_driver_call, false},
};

// What cuptiGetVersion says before CUDA 13, where several versions may share a number: the records
// of those that do are as long as the later one's, 11.8 apart, which has a soname of its own.
struct Numbered {
  uint32_t api_version, version;
};

const Numbered kNumbered[] = {{28, 1209}, {26, 1208}, {24, 1206}, {23, 1205}, {22, 1204},
                              {21, 1203}, {20, 1202}, {18, 1201}, {0, 1108}};

uint32_t cuda_version(uint32_t api_version, bool is_11) {
  if (api_version >= 100000) return api_version / 10000 * 100 + api_version / 100 % 100;
  if (is_11) return 1108;
  const Numbered *row = kNumbered;
  while (row->api_version > api_version) row++;
  return row->version;
}

void *find_library(bool *is_11) {
  for (const char *name : kNames) {
    void *handle = host_loaded_library(name, nullptr);
    *is_11 = name == kNames[2];
    if (handle) return handle;
  }
  // A packager may have renamed the file.
  *is_11 = false;
  return host_loaded_library("libcupti.so", "libcupti");
}

}  // namespace

bool cupti_find() {
  if (g_cupti.library) return true;
  bool is_11;
  void *library = find_library(&is_11);
  if (!library) return false;
  for (const Wanted &wanted : kWanted) {
    void *found = g_host.dlsym(library, wanted.name);
    if (!found && wanted.required) return false;
    *(void **)wanted.slot = found;
  }
  uint32_t api_version = 0;
  if (g_cupti.get_version(&api_version) != CUPTI_ABI_RESULT_SUCCESS) return false;
  g_cupti.api_version = api_version;
  g_cupti.version = cuda_version(api_version, is_11);
  g_cupti.library = library;
  return true;
}

bool cuda_is_up() {
  // It answers CUDA_ERROR_NOT_INITIALIZED before cuInit and never initialises anything.
  static int (*device_count)(int *);
  if (!device_count) {
    void *driver = host_loaded_library("libcuda.so.1", "libcuda.so");
    if (!driver) return false;
    device_count = (int (*)(int *))g_host.dlsym(driver, "cuDeviceGetCount");
    if (!device_count) return false;
  }
  int count = 0;
  return device_count(&count) == 0 && count > 0;
}

}  // namespace gputap
