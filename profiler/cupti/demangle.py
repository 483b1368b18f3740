"""Mangled kernel names to what people wrote, whatever the name: bounded in time and size.

Our own reader goes first. It bounds what the system's makes of a name, and reads the long ones that
the system's refuses; where both can, the system's text is taken, as other tools show it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

from gputap.profiler.cupti import itanium
from gputap.profiler.cupti.itanium_cursor import Unreadable

MAX_MANGLED: Final = 1 << 14
"""Longer names stay as they are; the agent cuts them off here."""

_SYSTEM_LIMIT: Final = 1024
"""Characters beyond which `__cxa_demangle` gives up, since GCC 9."""

_FEW_REFERENCES: Final = 12
"""Each reference in a name can at most double the text: so many make 4 MB of 1,024 characters."""


def demangle(name: str) -> str:
    """The name as C++ has it; as it is, if it is not mangled, unreadable or would be too long."""
    if not name.startswith("_Z") or len(name) > MAX_MANGLED:
        return name
    try:
        own = itanium.demangled(name)
    except (Unreadable, RecursionError):
        few = name.count("S") + name.count("T") <= _FEW_REFERENCES
        return (_by_system(name) or name) if few else name
    return _by_system(name) or own


def has_system() -> bool:
    """Whether the system's libstdc++ is there; without it rare constructs stay mangled."""
    return _library() is not None


def _by_system(name: str) -> str | None:
    """What `__cxa_demangle` says; None if it is not there or refuses."""
    library = _library()
    if library is None or len(name) > _SYSTEM_LIMIT or not name.isascii():
        return None
    status = ctypes.c_int()
    found = library.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    if not found:
        return None
    try:
        return ctypes.string_at(found).decode(errors="replace")
    finally:
        library.free(found)


@cache
def _library() -> Any:
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        library.__cxa_demangle.restype = ctypes.c_void_p
        library.__cxa_demangle.argtypes = [
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_int),
        ]
        library.free.restype = None
        library.free.argtypes = [ctypes.c_void_p]
    except (OSError, AttributeError):
        return None
    return library
