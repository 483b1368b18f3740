"""Trains on the simulated GPU and profiles itself on request, by `own_profiler.c`.

A line on stdin is a command, an answer in JSON comes on stdout: `open`, `close`, `start`, `stop`
(CUPTI's result each), `steps N` (trains, N steps), `count` (kernels and copies that it recorded),
`torch begin`, `torch end` (torch's own profiler, which sees the CPU only here).
"""

import ctypes
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "simgpu" / "torch"))

import simcuda  # noqa: E402, F401
import torch  # noqa: E402

profiler = ctypes.CDLL(sys.argv[1])
profiles = []
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
model = model.to("simcuda")
optimizer = torch.optim.SGD(model.parameters(), 0.1)


def step():
    x = torch.randn(16, 64).to("simcuda")
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def answer(line):
    word, *numbers = line.split()
    if word == "steps":
        return [step() for _ in range(int(numbers[0]))][-1]
    if word == "torch":
        if numbers == ["begin"]:
            profiles.append(torch.profiler.profile())
            profiles[-1].start()
        else:
            profiles.pop().stop()
        return 0
    if word == "count":
        return [profiler.profiler_count(10), profiler.profiler_count(1)]
    return getattr(profiler, f"profiler_{word}")()


step()
print(f"ready {os.getpid()}", flush=True)
for line in sys.stdin:
    print(json.dumps(answer(line)), flush=True)
