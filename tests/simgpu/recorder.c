/*
 * A CUPTI client to preload: records a program from its start to its end, and keeps the buffers as
 * they came. RECORDER_OUT is the file; RECORDER_CUPTI the library's name. The file:
 *
 *   for each buffer  u64 1, u64 bytes, the bytes
 *   for each kernel  u64 2, u64 bytes, the u64 address of its name, the name
 *   at the end       u64 3, u64 16, u64 cuptiGetVersion, u64 dropped
 */

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_abi.h"

enum { BUFFER = 64 << 10, PART_BUFFER = 1, PART_NAME = 2, PART_END = 3 };

static const uint32_t KINDS[] = {
    CUPTI_ABI_KIND_CONCURRENT_KERNEL, CUPTI_ABI_KIND_MEMCPY,  CUPTI_ABI_KIND_MEMSET,
    CUPTI_ABI_KIND_SYNCHRONIZATION,   CUPTI_ABI_KIND_RUNTIME, CUPTI_ABI_KIND_DRIVER,
    CUPTI_ABI_KIND_OVERHEAD,
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *out;
static int (*step)(uint8_t *, size_t, uint8_t **);
static int (*flush)(uint32_t);
static int (*get_version)(uint32_t *);
static int (*get_dropped)(void *, uint32_t, size_t *);

static void write_part(uint64_t part, const void *head, size_t head_size, const void *body,
                       size_t size) {
  const uint64_t header[] = {part, head_size + size};
  fwrite(header, sizeof header, 1, out);
  if (head_size) fwrite(head, 1, head_size, out);
  if (size) fwrite(body, 1, size, out);
}

static void request(uint8_t **buffer, size_t *size, size_t *most_records) {
  *buffer = aligned_alloc(8, BUFFER);
  *size = BUFFER;
  *most_records = 0;
}

/* Names are the library's: they must be read before this returns. */
static void complete(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
  (void)context, (void)stream, (void)size;
  pthread_mutex_lock(&lock);
  write_part(PART_BUFFER, NULL, 0, buffer, valid);
  uint8_t *record = NULL;
  while (valid && step(buffer, valid, &record) == CUPTI_ABI_RESULT_SUCCESS) {
    uint32_t kind;
    uint64_t name;
    memcpy(&kind, record, sizeof kind);
    if (kind != CUPTI_ABI_KIND_CONCURRENT_KERNEL) continue;
    memcpy(&name, record + CUPTI_ABI_KERNEL_NAME, sizeof name);
    const char *text = (const char *)(uintptr_t)name;
    if (text) write_part(PART_NAME, &name, sizeof name, text, strlen(text));
  }
  fflush(out);
  pthread_mutex_unlock(&lock);
  free(buffer);
}

static void *find(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (!found) {
    fprintf(stderr, "recorder: no %s\n", name);
    exit(1);
  }
  return found;
}

__attribute__((constructor)) static void start(void) {
  const char *path = getenv("RECORDER_OUT"), *name = getenv("RECORDER_CUPTI");
  void *library = path ? dlopen(name ? name : "libcupti.so.13", RTLD_NOW) : NULL;
  if (!library || !(out = fopen(path, "wb"))) return;
  int (*enable)(uint32_t) = find(library, "cuptiActivityEnable");
  int (*set_callbacks)(void *, void *) = find(library, "cuptiActivityRegisterCallbacks");
  step = find(library, "cuptiActivityGetNextRecord");
  flush = find(library, "cuptiActivityFlushAll");
  get_version = find(library, "cuptiGetVersion");
  get_dropped = find(library, "cuptiActivityGetNumDroppedRecords");
  set_callbacks(request, complete);
  for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
    const int error = enable(KINDS[i]);
    if (error) fprintf(stderr, "recorder: kind %u -> %d\n", KINDS[i], error);
  }
}

__attribute__((destructor)) static void stop(void) {
  uint32_t version = 0;
  size_t dropped = 0;
  if (!out) return;
  flush(1);
  get_version(&version);
  get_dropped(NULL, 0, &dropped);
  const uint64_t end[] = {version, dropped};
  write_part(PART_END, end, sizeof end, NULL, 0);
  fclose(out);
}
