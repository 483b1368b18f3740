"""Runs operators. SIGUSR1: closes every descriptor it does not know, and opens as many files."""

import os
import signal

import torch

HELD = []


def close_all(*_):
    os.closerange(3, 4096)
    while not HELD or HELD[-1] < 1500:
        HELD.append(os.open(__file__, os.O_RDONLY))
    print("closed", flush=True)


def say_what_is_open(*_):
    still = sum(os.path.samestat(os.fstat(fd), os.stat(__file__)) for fd in HELD)
    print(f"{still} of {len(HELD)}", flush=True)


signal.signal(signal.SIGUSR1, close_all)
signal.signal(signal.SIGUSR2, say_what_is_open)
x = torch.ones(8, 8)
print(f"ready {os.getpid()}", flush=True)
while True:
    x = (x @ x).clamp(max=1)
