"""What the device did while a block ran, from the truth log of this process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.simgpu import truth


def _log() -> list[truth.Operation]:
    return truth.read(Path(os.environ["SIMGPU_LOG"].replace("%p", str(os.getpid()))))


@contextmanager
def watched() -> Iterator[list[truth.Operation]]:
    """A list that holds, once the block has ended, the operations that it started."""
    torch.simcuda.synchronize()
    before = len(_log())
    operations: list[truth.Operation] = []
    yield operations
    torch.simcuda.synchronize()
    operations += _log()[before:]


def demangled(name: str) -> str:
    return str(torch._C._demangle(name))


def short(name: str) -> str:
    """`void at::native::foo_kernel<...>(...)` is `foo_kernel`; a telling functor is kept."""
    text = demangled(name).replace("(anonymous namespace)::", "")
    functor = re.search(r"(\w+(?:Functor|functor|Ops|CUDAFunctor)_?\w*)<", text)
    kernel = re.search(r"(\w+)(?:<|\(|$)", text.removeprefix("void "))
    assert kernel is not None
    lambda_of = re.search(r"(\w+)\(at::TensorIterator", text)
    detail = lambda_of or functor
    return kernel[1] + (f"[{detail[1]}]" if detail else "")


def kernels(operations: list[truth.Operation]) -> list[str]:
    return [short(o.name) for o in operations if o.kind == "kernel"]
