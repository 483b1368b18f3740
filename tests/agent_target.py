"""A process that does what a test says: one line of JSON in (Python source), one line out.

`load(path)` lets the agent into it without ptrace: the library is loaded by ctypes and entered with
the pointers that the injector's bootstrap thread would hand over.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from typing import Any

_agent: list[ctypes.CDLL] = []


class Enter(ctypes.Structure):
    """`struct gputap_enter` of injectors/library/native/enter.h."""

    _fields_ = (
        ("size", ctypes.c_uint64),
        ("dlsym", ctypes.c_void_p),
        ("dlopen", ctypes.c_void_p),
        ("pthread_create", ctypes.c_void_p),
        ("ring_count", ctypes.c_uint32),
        ("ring_capacity", ctypes.c_uint32),
        ("control_fd", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


def enter(path: str, ring_count: int = 0, ring_capacity: int = 0) -> int:
    """Enter the agent; returns the control descriptor, or a negative errno."""
    if not _agent:
        _agent.append(ctypes.CDLL(path))
    libc = ctypes.CDLL(None)
    pointers = [
        ctypes.cast(getattr(libc, name), ctypes.c_void_p).value
        for name in ("dlsym", "dlopen", "pthread_create")
    ]
    call = Enter(ctypes.sizeof(Enter), *pointers, ring_count, ring_capacity, -1, 0)
    _agent[0].gputap_agent_enter(ctypes.byref(call))
    return int(call.control_fd)


def main() -> None:
    scope: dict[str, Any] = {"enter": enter, "__name__": "target"}
    for line in sys.stdin:
        scope["value"] = None
        try:
            exec(compile(json.loads(line), "<test>", "exec"), scope)
            answer = {"value": scope["value"]}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(1, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    main()
