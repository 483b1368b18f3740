"""Loads CUDA when it is told to. A line on stdin is a command, its answer in JSON comes on stdout.

`load` maps the simulated libraries, `init` initialises CUDA (by way of torch's backend), `steps N`
runs a model, `fork` has a child that uses torch on the CPU, and answers with its exit code.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "simgpu" / "torch"))

import torch  # noqa: E402

state = {}


def load():
    folder = os.environ["SIMGPU_LIBRARIES"]
    for name in ("libcudart.so.13", "libcuda.so.1", "libcupti.so.13"):
        ctypes.CDLL(f"{folder}/{name}", mode=ctypes.RTLD_GLOBAL)


def init():
    import simcuda  # noqa: F401

    state["model"] = torch.nn.Linear(32, 8).to("simcuda")


def steps(number):
    with torch.no_grad():
        for _ in range(int(number)):
            state["model"](torch.randn(4, 32).to("simcuda")).sum()


def fork():
    child = os.fork()
    if child == 0:
        torch.ones(10).sum().item()
        os._exit(0)
    return os.waitpid(child, 0)[1]


torch.ones(3).sum()
print(f"ready {os.getpid()}", flush=True)
for line in sys.stdin:
    word, *arguments = line.split()
    print(json.dumps(globals()[word](*arguments)), flush=True)
