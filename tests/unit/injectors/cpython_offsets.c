/* Prints the fields of PythonLayout as the headers of one CPython have them. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#define Py_BUILD_CORE 1
#include <Python.h>
#include <frameobject.h>
#if PY_VERSION_HEX >= 0x030e0000
#include <internal/pycore_interpframe_structs.h>
typedef _PyInterpreterFrame Frame;
#elif PY_VERSION_HEX >= 0x030b0000
#include <internal/pycore_frame.h>
typedef _PyInterpreterFrame Frame;
#else
typedef PyFrameObject Frame;
#endif
#define SAY(name, value) printf("%s %ld\n", name, (long)(value))
#define AT(name, type, member) SAY(name, offsetof(type, member))

static void frames(void) {
#if PY_VERSION_HEX >= 0x030d0000
  AT("tstate_frame", PyThreadState, current_frame);
  AT("frame_code", Frame, f_executable);
  AT("frame_instr", Frame, instr_ptr);
#elif PY_VERSION_HEX >= 0x030b0000
  AT("tstate_frame", PyThreadState, cframe);
  AT("cframe_current", _PyCFrame, current_frame);
  AT("frame_code", Frame, f_code);
  AT("frame_instr", Frame, prev_instr);
#else
  AT("tstate_frame", PyThreadState, frame);
  AT("frame_code", Frame, f_code);
  AT("frame_instr", Frame, f_lasti);
  AT("frame_back", Frame, f_back);
  AT("frame_locals", Frame, f_localsplus);
#endif
#if PY_VERSION_HEX >= 0x030b0000
  AT("frame_back", Frame, previous);
  AT("frame_locals", Frame, localsplus);
#endif
#if PY_VERSION_HEX >= 0x030e0000
  AT("frame_owner", Frame, owner);
  SAY("owner_cstack", FRAME_OWNED_BY_INTERPRETER);
#elif PY_VERSION_HEX >= 0x030c0000
  AT("frame_owner", Frame, owner);
  SAY("owner_cstack", FRAME_OWNED_BY_CSTACK);
#endif
}

static void codes(void) {
  AT("code_name", PyCodeObject, co_name);
  AT("code_filename", PyCodeObject, co_filename);
  AT("code_firstlineno", PyCodeObject, co_firstlineno);
#if PY_VERSION_HEX >= 0x030b0000
  AT("code_qualname", PyCodeObject, co_qualname);
  AT("code_instructions", PyCodeObject, co_code_adaptive);
#endif
#if PY_VERSION_HEX >= 0x030a0000
  AT("code_linetable", PyCodeObject, co_linetable);
#else
  AT("code_linetable", PyCodeObject, co_lnotab);
#endif
}

static void objects(void) {
  PyASCIIObject text;
  unsigned mask;
  memset(&text, 0, sizeof text);
  text.state.compact = 1;
  text.state.ascii = 1;
  memcpy(&mask, (char *)&text + offsetof(PyASCIIObject, state), sizeof mask);
  AT("ob_type", PyObject, ob_type);
  AT("unicode_length", PyASCIIObject, length);
  AT("unicode_state", PyASCIIObject, state);
  SAY("unicode_ascii_mask", mask);
  SAY("unicode_ascii_data", sizeof(PyASCIIObject));
  SAY("unicode_data", sizeof(PyCompactUnicodeObject));
  memset(&text, 0, sizeof text);
  text.state.kind = 1;
  memcpy(&mask, (char *)&text + offsetof(PyASCIIObject, state), sizeof mask);
  SAY("unicode_kind_shift", __builtin_ctz(mask));
  AT("bytes_size", PyVarObject, ob_size);
  AT("bytes_data", PyBytesObject, ob_sval);
}

int main(void) {
  frames();
  codes();
  objects();
  return 0;
}
