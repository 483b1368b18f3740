"""Claims about CUDA: how they are written, and how one is run.

A claim is a function that takes a `Stack`; it runs in a process of its own
(`python -m tests.gpu.claims NAME`), against the simulated libraries or the real ones, so it may
not know which they are.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

from tests.gpu.stack import CudaError, Stack

Claim = Callable[[Stack], None]

MODULES: Final = ("behaviours", "behaviours_runtime", "behaviours_driver")
DOES_NOT_APPLY: Final = 77
_CLAIMS: Final[dict[str, Claim]] = {}


class Skipped(Exception):
    """This version has no such thing."""


def behaviour(function: Claim) -> Claim:
    """Makes a function a claim."""
    _CLAIMS[function.__name__] = function
    return function


def claims() -> dict[str, Claim]:
    """All, by name."""
    for module in MODULES:
        importlib.import_module(f"tests.gpu.{module}")
    return _CLAIMS


def code_of(call: Callable[[], None]) -> int:
    """What a call gives."""
    try:
        call()
    except CudaError as exc:
        return exc.code
    return 0


def blocked(stack: Stack, stream: ctypes.c_void_p) -> threading.Event:
    """Holds a stream up until the event is set."""
    gate = threading.Event()
    stack.host_function(stream, gate.wait)
    return gate


def main(name: str) -> int:
    """Runs one."""
    try:
        claims()[name](Stack())
    except Skipped as exc:
        print(exc)
        return DOES_NOT_APPLY
    return 0


if __name__ == "__main__":
    # Under its real name: the modules register with that one.
    status = importlib.import_module("tests.gpu.claims").main(sys.argv[1])
    sys.stdout.flush()
    os._exit(status)  # threads of the libraries may be in our callbacks
