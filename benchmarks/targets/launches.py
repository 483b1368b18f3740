"""Runs `launch_loop.c` on request: a line on stdin is `launches N` or `client 0|1`."""

import ctypes
import os
import sys

import torch  # noqa: F401  gputap taps PyTorch processes

loop = ctypes.CDLL(sys.argv[1])
loop.launches.restype = ctypes.c_int64
assert loop.prepare() == 0
print("ready", os.getpid(), flush=True)
for line in sys.stdin:
    word, number = line.split()
    print(getattr(loop, word)(int(number)), flush=True)
