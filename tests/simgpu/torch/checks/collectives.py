"""Collectives of the ranks of a job; RANK and its friends are in the environment."""

from __future__ import annotations

import gc
import json
import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

warnings.simplefilter("ignore")  # of names that torch is about to change


def _begin(kind: str) -> torch.device:
    """ "gloo", "simnccl" or the mixed group; the device of its tensors."""
    if kind == "gloo":
        dist.init_process_group(kind)
        return torch.device("cpu")
    import simcuda  # noqa: F401

    dist.init_process_group(kind)
    return torch.device("simcuda")


def _numbers(count: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.arange(1, count + 1) * (dist.get_rank() + 1)).to(dtype).to(device)


def _lists(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu().tolist()
    return [_lists(one) for one in value]


def all_of_them(kind: str) -> dict[str, Any]:
    """Every collective once, with inputs that differ from rank to rank."""
    device = _begin(kind)
    rank, size = dist.get_rank(), dist.get_world_size()
    seen: dict[str, Any] = {}

    def zeros(count: int, lists: int = 0) -> Any:
        made = [torch.zeros(count, device=device) for _ in range(lists or 1)]
        return made if lists else made[0]

    for name in ("SUM", "MAX", "MIN", "PRODUCT"):
        for dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8):
            tensor = _numbers(5, device, dtype)
            dist.all_reduce(tensor, getattr(dist.ReduceOp, name))
            seen[f"all_reduce {name} {dtype}"] = tensor
    tensor = _numbers(5, device)
    dist.broadcast(tensor, size - 1)
    seen["broadcast"] = tensor
    tensor = _numbers(5, device)
    dist.reduce(tensor, 1)
    seen["reduce"] = tensor if rank == 1 else tensor.new_zeros(0)
    seen["all_gather"] = zeros(5, size)
    dist.all_gather(seen["all_gather"], _numbers(5, device))
    seen["all_gather_into_tensor"] = zeros(5 * size)
    dist.all_gather_into_tensor(seen["all_gather_into_tensor"], _numbers(5, device))
    seen["reduce_scatter"] = zeros(5)
    dist.reduce_scatter(seen["reduce_scatter"], list(_numbers(5 * size, device).chunk(size)))
    seen["reduce_scatter_tensor"] = zeros(5)
    dist.reduce_scatter_tensor(seen["reduce_scatter_tensor"], _numbers(5 * size, device))
    gathered = zeros(5, size) if rank == 0 else None
    dist.gather(_numbers(5, device), gathered, 0)
    seen["gather"] = gathered or []
    seen["scatter"] = zeros(5)
    parts = list(_numbers(5 * size, device).chunk(size)) if rank == 1 else None
    dist.scatter(seen["scatter"], parts, 1)
    seen["all_to_all_single"] = zeros(2 * size)
    dist.all_to_all_single(seen["all_to_all_single"], _numbers(2 * size, device))
    # Rank r sends r + 1 rows to each.
    received = torch.zeros(size * (size + 1) // 2, 2, device=device)
    sent = _numbers(2 * size * (rank + 1), device).view(-1, 2)
    dist.all_to_all_single(received, sent, [peer + 1 for peer in range(size)], [rank + 1] * size)
    seen["all_to_all_single uneven"] = received
    tensor = _numbers(4, device)
    if rank == 0:
        dist.send(tensor, 1)
    if rank == 1:
        dist.recv(tensor, 0)
    seen["send and recv"] = tensor
    ring = zeros(3)
    operations = [
        dist.P2POp(dist.isend, _numbers(3, device), (rank + 1) % size),
        dist.P2POp(dist.irecv, ring, (rank - 1) % size),
    ]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    seen["ring"] = ring
    objects: list[Any] = [None] * size
    dist.all_gather_object(objects, {"rank": rank})
    dist.barrier()
    answer = {name: _lists(value) for name, value in seen.items()}
    dist.destroy_process_group()
    return {**answer, "objects": objects}


def only_here() -> dict[str, Any]:
    """What Gloo does not have: averages, scaled sums, bf16, lists of all-to-all, coalescing."""
    device = _begin("cpu:gloo,simcuda:simnccl")
    size = dist.get_world_size()
    seen: dict[str, Any] = {}
    for name, op in (
        ("AVG", dist.ReduceOp.AVG),
        ("scaled", dist._make_nccl_premul_sum(0.5)),
    ):
        seen[name] = _numbers(3, device)
        dist.all_reduce(seen[name], op)
    seen["bf16"] = _numbers(3, device, torch.bfloat16)
    dist.all_reduce(seen["bf16"])
    seen["all_to_all"] = [torch.zeros(2, device=device) for _ in range(size)]
    dist.all_to_all(seen["all_to_all"], list(_numbers(2 * size, device).chunk(size)))
    seen["all_reduce_coalesced"] = [_numbers(2, device), _numbers(3, device)]
    dist.all_reduce_coalesced(seen["all_reduce_coalesced"])
    tensors = [_numbers(2, device), _numbers(4, device)]
    with dist._coalescing_manager(device=device, async_ops=True) as manager:
        for tensor in tensors:
            dist.all_reduce(tensor)
    manager.wait()
    seen["coalescing manager"] = tensors
    host = torch.ones(2)
    dist.all_reduce(host)  # over Gloo, in the same group
    seen["host"] = host
    answer = {name: _lists(value) for name, value in seen.items()}
    dist.destroy_process_group()
    return answer


def asynchronous() -> list[Any]:
    """Rank 1 comes only when rank 0 has seen that neither the call nor wait() blocks its host."""
    device = _begin("simnccl")
    store = dist.distributed_c10d._get_default_store()
    warm = torch.ones(1, device=device)
    dist.all_reduce(warm)
    torch.simcuda.synchronize()
    tensor = _numbers(1000, device)
    if dist.get_rank() == 1:
        store.wait(["rank 0 waits"])
    work = dist.all_reduce(tensor, async_op=True)
    complete = work.is_completed() if dist.get_rank() == 0 else None
    work.wait()
    queried = torch.simcuda.current_stream().query() if dist.get_rank() == 0 else None
    store.set("rank 0 waits", "")
    # The next kernel's maths need the bytes: here the host does wait.
    total = (tensor + 1).sum().item()
    dist.destroy_process_group()
    return [complete, queried, total]


def in_graph() -> str:
    """The error of an all-reduce in a capture."""
    device = _begin("simnccl")
    tensor = torch.ones(2, device=device)
    dist.all_reduce(tensor)
    message = ""
    with torch.simcuda.graph(torch.simcuda.CUDAGraph()):
        try:
            dist.all_reduce(tensor)
        except RuntimeError as exc:
            message = str(exc)
    dist.destroy_process_group()
    return message


def profiled() -> list[Any]:
    """The profiler's events of one all-reduce: names, and what record_param_comms was given."""
    device = _begin("simnccl")
    dist.all_reduce(torch.ones(4, device=device))
    profiler = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
    )
    tensor = torch.ones(10, device=device)
    with profiler:
        dist.all_reduce(tensor)
        dist.all_gather_into_tensor(torch.empty(20, device=device), tensor)
    torch.simcuda.synchronize()
    recorder = json.loads(torch._C._distributed_c10d._dump_nccl_trace_json())
    path = os.environ["TRACE"] + os.environ["RANK"]
    profiler.export_chrome_trace(path)
    dist.destroy_process_group()
    return [path, [event.name for event in profiler.events()], recorder["entries"]]


def sharded(kind: str) -> list[float]:
    """Losses of four steps: "ddp", "fsdp1", "fsdp2" or "zero"."""
    import torch.distributed.fsdp as fsdp
    from gpt import GPT, batch, loss_of
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    device = _begin("gloo" if kind == "cpu" else "simnccl")
    torch.manual_seed(0)
    model: Any = GPT().to(device)
    if kind == "fsdp1":
        model = fsdp.FullyShardedDataParallel(model, device_id=torch.device("simcuda", 0))
    elif kind == "fsdp2":
        for block in model.blocks:
            fsdp.fully_shard(block)
        fsdp.fully_shard(model)
    else:
        model = DistributedDataParallel(model)
    optimizer: Any = (
        ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=3e-3)
        if kind == "zero"
        else torch.optim.AdamW(model.parameters(), lr=3e-3)
    )
    generator = torch.Generator().manual_seed(dist.get_rank())
    losses = []
    for _ in range(4):
        tokens = batch(generator, 4).to(device)
        optimizer.zero_grad()
        loss = loss_of(model, tokens)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # First, or the group's last reference dies with the GIL held, which Gloo's thread may want.
    del model, optimizer, loss
    gc.collect()
    dist.destroy_process_group()
    return losses
