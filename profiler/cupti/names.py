"""Everything that a kernel's name tells, once per distinct name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gputap.profiler.cupti.categories import Category, TensorCores, category, tensor_cores
from gputap.profiler.cupti.demangle import demangle
from gputap.profiler.cupti.nccl_names import Collective, collective
from gputap.profiler.cupti.short_names import short_name

_REMEMBERED: Final = 1 << 12
"""A job has some hundred names; hostile ones, of 32 KB each, shall not fill the memory."""


@dataclass(frozen=True, slots=True)
class KernelName:
    """A kernel by its name."""

    name: str
    """Whole and demangled."""
    short_name: str
    category: Category
    tensor_cores: TensorCores
    collective: Collective | None
    """What it communicates, if it is NCCL's or RCCL's."""


@lru_cache(maxsize=_REMEMBERED)
def describe(name: str) -> KernelName:
    """What is known of a kernel by its name as CUPTI gives it, mangled or not."""
    whole = demangle(name)
    return KernelName(
        whole, short_name(whole), category(whole), tensor_cores(whole), collective(whole)
    )
