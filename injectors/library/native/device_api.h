// The CUPTI that the target has mapped: its functions by name, its version. Never a second copy of it.
#ifndef GPUTAP_DEVICE_API_H
#define GPUTAP_DEVICE_API_H

#include <stddef.h>
#include <stdint.h>

#include "device_abi.h"

namespace gputap {

// CUpti_CallbackData.
struct CuptiCallbackData {
  uint32_t site; /* 0 enter, 1 exit */
  const char *function;
  const void *parameters;
  void *result;
  const char *symbol;
  void *context;
  uint32_t context_uid;
  uint64_t *correlation_data;
  uint32_t correlation_id;
};

typedef void (*CuptiCallback)(void *user, uint32_t domain, uint32_t cbid, const void *data);
typedef void (*CuptiRequest)(uint8_t **buffer, size_t *size, size_t *most_records);
typedef void (*CuptiComplete)(void *context, uint32_t stream, uint8_t *buffer, size_t size,
                              size_t valid);

struct CuptiApi {
  void *library;
  uint32_t api_version; /* what cuptiGetVersion says */
  uint32_t version;     /* CUDA's: major * 100 + minor */

  int (*get_version)(uint32_t *);
  int (*subscribe)(void **subscriber, CuptiCallback, void *user);
  int (*unsubscribe)(void *subscriber);
  int (*enable_callback)(uint32_t on, void *subscriber, uint32_t domain, uint32_t cbid);
  int (*register_callbacks)(CuptiRequest, CuptiComplete);
  int (*enable)(uint32_t kind);
  int (*enable_and_dump)(uint32_t kind);
  int (*disable)(uint32_t kind);
  int (*flush_all)(uint32_t forced);
  int (*next_record)(uint8_t *buffer, size_t valid, void **record);
  int (*dropped)(void *context, uint32_t stream, size_t *count);
  int (*set_attribute)(uint32_t attribute, size_t *size, void *value);
  int (*timestamp)(uint64_t *);
  int (*set_thread_ids)(uint32_t type);                  /* may be null */
  int (*get_thread_ids)(uint32_t *type);
  int (*enable_runtime_call)(uint32_t cbid, uint8_t on); /* null before 12.5 */
  int (*enable_driver_call)(uint32_t cbid, uint8_t on);
};

extern CuptiApi g_cupti;

// Looks for a libcupti that is mapped. False if there is none that has what we need; may be asked
// again: CUDA may be loaded later.
bool cupti_find();

// Whether the process has initialised CUDA itself. Taking CUPTI earlier could do it in its place, and
// then the children that it forks could not use CUDA any more.
bool cuda_is_up();

}  // namespace gputap

#endif
