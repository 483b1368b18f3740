#include "python_source.h"

#include "text.h"

namespace gputap {

namespace {

// "ValueError: no such thing".
void answer_with_error(PythonText *answer) {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  g_python.error_fetch(&type, &value, &trace);
  g_python.error_normalize(&type, &value, &trace);
  PyObject *name = type ? g_python.get_attribute(type, "__name__") : nullptr;
  PyObject *words = value ? g_python.to_text(value) : nullptr;
  PySize length = 0;
  Text text(answer->text, answer->capacity);
  const char *part = name ? g_python.utf8(name, &length) : nullptr;
  if (part) text.bytes(part, (size_t)length) << ": ";
  part = words ? g_python.utf8(words, &length) : nullptr;
  if (part) text.bytes(part, (size_t)length);
  answer->status = 1;
  answer->length = (uint32_t)text.length();
  PyObject *const owned[] = {name, words, type, value, trace};
  for (PyObject *object : owned) python_drop(object);
  g_python.error_clear();
}

void answer_with_result(PyObject *globals, PythonText *answer) {
  PyObject *result = g_python.dict_get(globals, "result");
  PySize length = 0;
  const char *text = result ? g_python.utf8(result, &length) : nullptr;
  g_python.error_clear();
  if (text)
    python_answer_with(answer, 0, text, (size_t)length);
  else
    python_answer_with(answer, 1, "the source left no str in `result`", 34);
}

}  // namespace

void python_answer_with(PythonText *answer, int32_t status, const char *text, size_t length) {
  answer->status = status;
  answer->length = (uint32_t)(length < answer->capacity ? length : answer->capacity);
  __builtin_memcpy(answer->text, text, answer->length);
}

PyObject *python_new_globals() {
  PyObject *globals = g_python.dict_new();
  PyObject *builtins = g_python.import("builtins");
  if (globals && builtins) g_python.dict_set(globals, "__builtins__", builtins);
  python_drop(builtins);
  g_python.error_clear();
  return globals;
}

void python_drop_globals(PyObject *globals) {
  if (globals) g_python.dict_clear(globals);
  python_drop(globals);
}

PyObject *python_compile(const char *source, PythonText *answer) {
  PyObject *code = g_python.compile(source, "<gputap>", kFileInput);
  if (!code) answer_with_error(answer);
  return code;
}

void python_evaluate(PyObject *code, PyObject *globals, PythonText *answer) {
  PyObject *done = globals ? g_python.evaluate(code, globals, globals) : nullptr;
  if (done)
    answer_with_result(globals, answer);
  else
    answer_with_error(answer);
  python_drop(done);
}

}  // namespace gputap
