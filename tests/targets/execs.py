"""Runs operators; SIGUSR1 makes the process another program, which waits for its input to end."""

import os
import signal
import sys

import torch

OTHER = "import sys; print('other', flush=True); sys.stdin.read()"


def become_another(*_):
    os.execv(sys.executable, [sys.executable, "-c", OTHER])


signal.signal(signal.SIGUSR1, become_another)
x = torch.ones(8, 8)
print(f"ready {os.getpid()}", flush=True)
while True:
    x = (x @ x).clamp(max=1)
