"""Memory, streams, events, copies and graphs."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any

import simcuda  # noqa: F401
import torch
import torch.nn.functional as F
from torch import nn
from watch import kernels, watched

MIB = 1 << 20
cuda = torch.simcuda


def _memory() -> list[int]:
    return [cuda.memory_allocated(), cuda.memory_reserved(), cuda.max_memory_allocated()]


def memory() -> dict[str, list[int]]:
    """Allocated, reserved and peak bytes, through a life of two tensors."""
    seen = {"start": _memory()}
    a = torch.empty(1000, dtype=torch.uint8, device="simcuda")
    b = torch.empty(3 * MIB, dtype=torch.uint8, device="simcuda")
    seen["two tensors"] = _memory()
    free_with_two = cuda.mem_get_info()[0]
    del b
    seen["one is cached"] = _memory()
    b = torch.empty(3 * MIB - 5000, dtype=torch.uint8, device="simcuda")
    seen["reused"] = _memory()
    stats = cuda.memory_stats()
    seen["calls of the device"] = [stats["num_device_alloc"], stats["num_device_free"]]
    del a, b
    cuda.empty_cache()
    cuda.reset_peak_memory_stats()
    seen["emptied"] = _memory()
    seen["given back"] = [cuda.mem_get_info()[0] - free_with_two]
    return seen


def out_of_memory() -> dict[str, Any]:
    """On a device of 64 MiB (SIMGPU_MEMORY)."""
    kept = torch.empty(40 * MIB, dtype=torch.uint8, device="simcuda")
    message = ""
    try:
        torch.empty(30 * MIB, dtype=torch.uint8, device="simcuda")
    except torch.OutOfMemoryError as exc:
        message = str(exc)
    after_failure = cuda.memory_stats()
    del kept  # stays in the cache, and has to go for the next one
    fits = torch.empty(60 * MIB, dtype=torch.uint8, device="simcuda")
    stats = cuda.memory_stats()
    return {
        "message": message,
        "ooms": [after_failure["num_ooms"], stats["num_ooms"]],
        "retries": [after_failure["num_alloc_retries"], stats["num_alloc_retries"]],
        "fits": fits.numel(),
        "reserved": cuda.memory_reserved(),
    }


def streams() -> dict[str, Any]:
    x = torch.ones(256, 256).to("simcuda")
    side = cuda.Stream()
    with watched() as done:
        y = x @ x
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            z = y + 1
        cuda.current_stream().wait_stream(side)
        (z * 2).sum()
    streams_of = [o.stream for o in done]
    return {
        "kernels": kernels(done),
        "default first and last": streams_of[0] == streams_of[2] == streams_of[3] == 7,
        "side": streams_of[1] != 7,
        "in order": all(a.end_ns <= b.start_ns for a, b in pairwise(done)),
        "current again": cuda.current_stream().stream_id == 0,
    }


def overlap() -> list[bool]:
    """Kernels of two streams: the second starts before the first has ended. Virtual clock."""
    large = torch.empty(1 << 26, dtype=torch.uint8, device="simcuda")
    small = torch.empty(8, dtype=torch.uint8, device="simcuda")
    side = cuda.Stream()
    side.query()  # made by now
    with watched() as done:
        large.zero_()
        with cuda.stream(side):
            small.zero_()
    first, second = sorted(done, key=lambda o: o.start_ns)
    return [first.start_ns < second.start_ns < first.end_ns, first.stream != second.stream]


def events() -> dict[str, Any]:
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    large = torch.empty(1 << 28, dtype=torch.uint8, device="simcuda")
    with watched() as done:
        start.record()
        large.fill_(1)
        large.fill_(2)
        end.record()
        end.synchronize()
    busy_ms = sum(o.end_ns - o.start_ns for o in done) / 1e6
    return {"ready": end.query(), "at least busy": start.elapsed_time(end) >= busy_ms - 1e-3}


def recorded_stream() -> list[bool]:
    """Memory that a side stream still uses is not given to the next tensor; afterwards it is.

    With a SIMCUDA_SLOWDOWN that makes a kernel last a second.
    """
    side = cuda.Stream()
    used = torch.empty(4 * MIB, dtype=torch.uint8, device="simcuda")
    address = used.data_ptr()
    with cuda.stream(side):
        used[:8].fill_(1)
    used.record_stream(side)
    del used
    gc.collect()
    other = torch.empty(4 * MIB, dtype=torch.uint8, device="simcuda")
    too_early = other.data_ptr() == address and not side.query()
    side.synchronize()
    again = torch.empty(4 * MIB, dtype=torch.uint8, device="simcuda")
    return [too_early, address in (other.data_ptr(), again.data_ptr())]


def copies() -> list[list[int]]:
    """Copy kind, source kind, destination kind and bytes of each copy."""
    host = torch.arange(1000, dtype=torch.float32)
    pinned = host.pin_memory()
    assert pinned.is_pinned() and not host.is_pinned()
    with watched() as done:
        a = host.to("simcuda")
        b = pinned.to("simcuda", non_blocking=True)
        c = a.clone()
        d = torch.empty(1000, pin_memory=True).copy_(b, non_blocking=True)
        e = c[::2].cpu()  # a kernel packs it first
        f = a[0].item()
        g = a.to(torch.bfloat16).cpu()
    cuda.synchronize()
    assert torch.equal(d, host) and torch.equal(e, host[::2]) and f == 0.0
    assert torch.equal(g, host.bfloat16())
    return [
        [o.copy_kind, o.source_kind, o.destination_kind, o.bytes] if o.kind == "memcpy" else [0]
        for o in done
    ]


def graph() -> dict[str, Any]:
    """A graph of two linear layers, replayed five times with new inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to("simcuda")
    x, captured = torch.zeros(2, 8, device="simcuda"), cuda.CUDAGraph()
    with torch.no_grad():
        model(x)
        with cuda.graph(captured):
            out = model(x)
        inputs = [torch.randn(2, 8).to("simcuda") for _ in range(5)]
        equal = []
        with watched() as done:
            for one in inputs:
                x.copy_(one)
                captured.replay()
                equal.append(out.clone())
        right = [torch.equal(a, model(b)) for a, b in zip(equal, inputs, strict=True)]
    nodes = [o for o in done if o.graph_id and o.kind == "kernel"]
    return {
        "right": right,
        "kernels": kernels(nodes),
        "correlations": len({o.correlation_id for o in nodes}),
        "nodes": len({o.graph_node_id for o in nodes}),
        "launched outside": kernels([o for o in done if not o.graph_id]),
    }


def trained_in_graph() -> list[list[float]]:
    """Losses of a whole training step, with autograd's threads: eager, and as a graph."""

    def make() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).to("simcuda")
        x, y = torch.randn(6, 8).to("simcuda"), torch.arange(6).remainder(4).to("simcuda")
        return model, torch.optim.SGD(model.parameters(), lr=0.1, foreach=True), x, y

    def step(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    eager = make()
    losses = [[step(*eager).item() for _ in range(6)]]
    kept = make()
    side = cuda.Stream()
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        losses.append([step(*kept).item()])
    cuda.current_stream().wait_stream(side)
    before = [p.detach().clone() for p in kept[0].parameters()]
    captured = cuda.CUDAGraph()
    with cuda.graph(captured):
        loss = step(*kept)
    # A capture computes here, unlike CUDA's: begin again from where it began.
    with torch.no_grad():
        for parameter, value in zip(kept[0].parameters(), before, strict=True):
            parameter.copy_(value)
    for _ in range(5):
        captured.replay()
        losses[1].append(loss.item())
    return losses


def several_devices() -> list[Any]:
    """With SIMGPU_DEVICES=2."""
    there = torch.ones(3, device="simcuda:1")
    with watched() as done, cuda.device(1):
        (there + 1).sum().item()
        current = cuda.current_device()
    return [cuda.device_count(), current, cuda.current_device(), sorted({o.device for o in done})]
