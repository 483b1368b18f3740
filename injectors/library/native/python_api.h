// The few functions of CPython's C API that the agent calls, found by name. All are in the limited
// API or older than 3.8 and unchanged since.
#ifndef GPUTAP_PYTHON_API_H
#define GPUTAP_PYTHON_API_H

#include <stdint.h>

namespace gputap {

typedef void PyObject;
typedef long PySize;

struct PyMethod {
  const char *name;
  PyObject *(*function)(PyObject *self, PyObject *arguments);
  int flags;
  const char *doc;
};

constexpr int kMethodTakesTuple = 1, kMethodTakesNothing = 4;
constexpr int kFileInput = 257;

struct PythonApi {
  int (*is_initialized)();
  int (*is_finalizing)();
  int (*ensure)();
  void (*release)(int);
  PyObject *(*compile)(const char *, const char *, int);
  PyObject *(*evaluate)(PyObject *, PyObject *, PyObject *);
  PyObject *(*import)(const char *);
  PyObject *(*get_attribute)(PyObject *, const char *);
  PyObject *(*to_text)(PyObject *);
  PyObject *(*dict_new)();
  int (*dict_set)(PyObject *, const char *, PyObject *);
  PyObject *(*dict_get)(PyObject *, const char *);
  void (*dict_clear)(PyObject *);
  PyObject *(*tuple_get)(PyObject *, PySize);
  int (*list_append)(PyObject *, PyObject *);
  PySize (*list_size)(PyObject *);
  PyObject *(*list_get)(PyObject *, PySize);
  int (*sequence_delete)(PyObject *, PySize);
  long (*long_value)(PyObject *);
  const char *(*utf8)(PyObject *, PySize *);
  void (*error_fetch)(PyObject **, PyObject **, PyObject **);
  void (*error_normalize)(PyObject **, PyObject **, PyObject **);
  void (*error_clear)();
  void (*increase)(PyObject *);
  void (*decrease)(PyObject *);
  PyObject *(*function_new)(PyMethod *, PyObject *, PyObject *);
  PyObject *none;
};

extern PythonApi g_python;

// False if the process has no Python, or one that lacks something.
bool python_api_find(uint32_t version);

// Python can run code now: started, and not ending.
bool python_is_up();

}  // namespace gputap

#endif
