#include "python_api.h"

#include "fork.h"
#include "host.h"
#include "text.h"

namespace gputap {

PythonApi g_python;

namespace {

struct Wanted {
  const char *name;
  void *slot;
};

const Wanted kWanted[] = {
    {"Py_IsInitialized", &g_python.is_initialized},
    {"PyGILState_Ensure", &g_python.ensure},
    {"PyGILState_Release", &g_python.release},
    {"Py_CompileString", &g_python.compile},
    {"PyEval_EvalCode", &g_python.evaluate},
    {"PyImport_ImportModule", &g_python.import},
    {"PyObject_GetAttrString", &g_python.get_attribute},
    {"PyObject_Str", &g_python.to_text},
    {"PyDict_New", &g_python.dict_new},
    {"PyDict_SetItemString", &g_python.dict_set},
    {"PyDict_GetItemString", &g_python.dict_get},
    {"PyDict_Clear", &g_python.dict_clear},
    {"PyTuple_GetItem", &g_python.tuple_get},
    {"PyList_Append", &g_python.list_append},
    {"PyList_Size", &g_python.list_size},
    {"PyList_GetItem", &g_python.list_get},
    {"PySequence_DelItem", &g_python.sequence_delete},
    {"PyLong_AsLong", &g_python.long_value},
    {"PyUnicode_AsUTF8AndSize", &g_python.utf8},
    {"PyErr_Fetch", &g_python.error_fetch},
    {"PyErr_NormalizeException", &g_python.error_normalize},
    {"PyErr_Clear", &g_python.error_clear},
    {"Py_IncRef", &g_python.increase},
    {"Py_DecRef", &g_python.decrease},
    {"PyCFunction_NewEx", &g_python.function_new},
    {"_Py_NoneStruct", &g_python.none},
};

bool complete;

void *find(void *library, const char *name) {
  return library ? g_host.dlsym(library, name) : host_symbol(name);
}

}  // namespace

bool python_api_find(uint32_t version) {
  if (complete) return true;
  void *library = nullptr;
  if (!host_symbol("Py_IsInitialized") && version) {
    // Embedded by a program that loaded libpython for itself alone.
    char stem[32];
    library = host_loaded_library(python_library_stem(version, stem, sizeof stem), stem);
    if (!library) return false;
  }
  for (const Wanted &wanted : kWanted) {
    void *found = find(library, wanted.name);
    if (!found) return false;
    *(void **)wanted.slot = found;
  }
  void *finalizing = find(library, "Py_IsFinalizing"); /* 3.13 */
  if (!finalizing) finalizing = find(library, "_Py_IsFinalizing");
  g_python.is_finalizing = (int (*)())finalizing;
  complete = true;
  return true;
}

bool python_is_up() {
  return complete && !process_is_ending() && g_python.is_initialized() &&
         !(g_python.is_finalizing && g_python.is_finalizing());
}

}  // namespace gputap
