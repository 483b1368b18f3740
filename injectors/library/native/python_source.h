// Source text, run in the target's Python with the GIL held; the answer is the `str` in `result`.
#ifndef GPUTAP_PYTHON_SOURCE_H
#define GPUTAP_PYTHON_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "python_api.h"

namespace gputap {

struct PythonText {
  int32_t status; /* 0, 1 exception (the text says which), -EOPNOTSUPP no Python */
  uint32_t length;
  char *text;
  uint32_t capacity;
};

// Takes as much as fits.
void python_answer_with(PythonText *answer, int32_t status, const char *text, size_t length);

// A private dict to run in: the job's __main__ never sees us. Null: no memory.
PyObject *python_new_globals();

// Functions of a source hold the dict that holds them.
void python_drop_globals(PyObject *globals);

// Null, and why in the answer, if it is no Python.
PyObject *python_compile(const char *source, PythonText *answer);

void python_evaluate(PyObject *code, PyObject *globals, PythonText *answer);

inline void python_drop(PyObject *object) {
  if (object) g_python.decrease(object);
}

}  // namespace gputap

#endif
