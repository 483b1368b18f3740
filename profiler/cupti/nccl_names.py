"""What NCCL's and RCCL's kernels do, by their names.

The algorithm and protocol in a name are those of the code that it was compiled for: NCCL may run
another protocol inside of it (NVIDIA/nccl PR 2223). They are a hint, no measurement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_OPS: Final = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "allgatherv": "all_gather",
    "reducescatter": "reduce_scatter",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "sendrecv": "send_recv",
    "send": "send",
    "recv": "recv",
    "alltoall": "all_to_all",
    "alltoallpivot": "all_to_all",
    "gather": "gather",
    "scatter": "scatter",
}
_REDUCTIONS: Final = {
    "sum",
    "prod",
    "min",
    "max",
    "minmax",
    "premulsum",
    "sumpostdiv",
    "avg",
}
_TYPES: Final = {
    "int8_t": "i8",
    "uint8_t": "u8",
    "int32_t": "i32",
    "uint32_t": "u32",
    "int64_t": "i64",
    "uint64_t": "u64",
    "half": "f16",
    "float": "f32",
    "double": "f64",
    "__nv_bfloat16": "bf16",
    "rccl_bfloat16": "bf16",
    "hip_bfloat16": "bf16",
    "fp8_e4m3": "f8e4m3",
    "fp8_e5m2": "f8e5m2",
}
_SHORT_TYPES: Final = {*_TYPES.values(), "f8e4m3", "f8e5m2"}
_ALGORITHMS: Final = {
    "ring": "ring",
    "tree": "tree",
    "collnet": "collnet",
    "collnetdirect": "collnet_direct",
    "collnetchain": "collnet_chain",
    "nvls": "nvls",
    "nvlstree": "nvls_tree",
    "pat": "pat",
}
_PROTOCOLS: Final = {"ll": "ll", "ll128": "ll128", "simple": "simple"}

_NEW: Final = re.compile(r"(?:nccl|rccl|msccl)(?:Sym|Symk)?(?:Dev)?Kernel_(\w+)")
_OLD: Final = re.compile(
    r"nccl(AllReduce|AllGather|ReduceScatter|Broadcast|Reduce|SendRecv)"
    r"(Ring|Tree|CollNet|NVLS)?(LL128|LL|SIMPLE|Simple)?Kernel(?:_(\w+))?"
)


@dataclass(frozen=True, slots=True)
class Collective:
    """What is known of a communication kernel by its name; None where the name does not tell."""

    op: str | None
    """`all_reduce`, `send_recv`, ...; None for kernels that do whatever is in their work list."""
    reduction: str | None = None
    dtype: str | None = None
    algo: str | None = None
    proto: str | None = None


def collective(name: str) -> Collective | None:
    """What an NCCL or RCCL kernel does; None if the name is no such kernel's."""
    head = name.partition("(")[0]
    old = _OLD.search(head)
    if old:
        words = [word for word in old.groups() if word]
        return _from_words([*words[:-1], *words[-1].split("_")])
    new = _NEW.search(head)
    return _from_words(_words(new.group(1))) if new else None


def _words(text: str) -> list[str]:
    """The words of a name; `int8_t` and `fp8_e4m3` are one each."""
    long = [word for word in _TYPES if "_" in word and f"_{word}" in text]
    for word in long:
        text = text.replace(f"_{word}", "")
    for two in ("NVLS_TREE", "COLLNET_DIRECT", "COLLNET_CHAIN"):
        text = text.replace(two, two.replace("_", ""))
    return [*(word for word in text.split("_") if word), *long]


def _from_words(words: list[str]) -> Collective:
    """Each word is looked up for what it can be: their order changed from version to version."""
    found: dict[str, str | None] = {}
    for word in words:
        lower = word.lower()
        if lower in _OPS and "op" not in found:
            found["op"] = _OPS[lower]
        elif lower in _REDUCTIONS:
            found["reduction"] = lower
        elif lower in _SHORT_TYPES or lower in _TYPES:
            found["dtype"] = _TYPES.get(lower, lower)
        elif lower in _ALGORITHMS:
            found["algo"] = _ALGORITHMS[lower]
        elif lower in _PROTOCOLS:
            found["proto"] = _PROTOCOLS[lower]
    if found.get("op") not in ("all_reduce", "reduce", "reduce_scatter"):
        # Old versions compiled everything as if it were a sum of bytes.
        found |= {"reduction": None, "dtype": None}
    return Collective(**{"op": None, **found})
