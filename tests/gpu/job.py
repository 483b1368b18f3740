"""A training job on a real GPU that does what a test tells it.

A line on stdin is a command, its answer in JSON comes on stdout: `steps N` runs the workload,
`profile N` runs it under torch.profiler and answers with the kernels that it saw, `loss` reads the
last loss, `memory` what torch's allocator counts. `job.py WORKLOAD DEVICE`: mlp, gpt or graph.
"""

import json
import os
import sys

import torch
from torch import nn

BATCH, WIDTH = 64, 1024


class Mlp:
    """A few large products and many small kernels."""

    def __init__(self, device):
        self.x = torch.randn(BATCH, WIDTH, device=device)
        self.model = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64)
        ).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def step(self):
        self.optimizer.zero_grad()
        self.loss = self.model(self.x).square().mean()
        self.loss.backward()
        self.optimizer.step()


class Gpt(Mlp):
    """Attention in bf16."""

    def __init__(self, device):
        self.x = torch.randn(8, 256, 512, device=device)
        layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
        self.model = nn.TransformerEncoder(layer, 4).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, foreach=True)
        self.device = torch.device(device).type

    def step(self):
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16):
            self.loss = self.model(self.x).square().mean()
        self.loss.backward()
        self.optimizer.step()


class Graph(Mlp):
    """Inference by one CUDA graph a step."""

    def __init__(self, device):
        super().__init__(device)
        self.model.eval()
        side = torch.cuda.Stream()
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(3):
                self.model(self.x)
            side.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=side):
                self.loss = self.model(self.x).square().mean()

    def step(self):
        self.graph.replay()


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def steps(number):
    for _ in range(int(number)):
        job.step()
    synchronize()


def profile(number):
    """Kernels as torch.profiler has them: [name, start ns, duration ns] in order of start."""
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        steps(number)
    events = profiler.profiler.kineto_results.events()
    found = [
        [e.name(), e.start_ns(), e.duration_ns()]
        for e in events
        if e.device_type() == torch.autograd.DeviceType.CUDA
    ]
    return sorted(found, key=lambda row: row[1])


def memory():
    device = torch.cuda if torch.cuda.is_available() else torch.accelerator
    return device.memory_stats()


def loss():
    return job.loss.item()


if sys.argv[2] == "simcuda":
    import simcuda  # noqa: F401

job = {"mlp": Mlp, "gpt": Gpt, "graph": Graph}[sys.argv[1]](sys.argv[2])
for _ in range(5):
    job.step()
synchronize()
print(f"ready {os.getpid()}", flush=True)
for line in sys.stdin:
    word, *arguments = line.split()
    print(json.dumps(globals()[word](*arguments)), flush=True)
