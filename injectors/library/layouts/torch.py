"""Where `at::RecordFunction` keeps what its inline accessors return, by torch version.

Sources: `ATen/record_function.h` of the releases 2.0.1 to 2.15.0, compared field by field. Run and
checked by matching forward and backward sequence numbers: 2.0.1 and 2.5.1 (old std::string ABI),
2.13.0 and 2.15.0 (new). A unit test compiles `offsetof` against the installed headers.

The class on 64-bit machines, from its start: vtable, StepCallbacks (thread id at 88, scope at 96),
a flag, the contexts, and at 160 the variant of a std::string (32 bytes in the new ABI, 8 in the
old) or a schema reference. After the variant and its index come sequence number, inputs (16 bytes),
from 2.4 on keyword inputs (56), outputs (24), and the forward thread's number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.injectors.library.layouts import packed
from gputap.profiler.schema import TORCH_LAYOUT

FIRST: Final = (2, 0)
LAST: Final = (2, 15)
"""Versions that were compared. Others get names and times only."""

KEYWORD_INPUTS_SINCE: Final = (2, 4)

_THREAD_ID: Final = 88
_SCOPE: Final = 96
_NAME: Final = 160
_STRING_BYTES: Final = {True: 32, False: 8}
_INPUTS_BYTES: Final = 16
_KEYWORD_INPUTS_BYTES: Final = 56
_OUTPUTS_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class TorchLayout:
    """`schema.TORCH_LAYOUT` in Python. -1 = unknown: the agent leaves that out."""

    version: int = 0
    cxx11_abi: int = 0
    thread_id: int = -1
    scope: int = -1
    fn_index: int = -1
    seq: int = -1
    forward_thread_id: int = -1
    inputs: int = -1

    def packed(self) -> npt.NDArray[np.uint8]:
        """The wire form."""
        return packed(TORCH_LAYOUT, self)


def parse_version(version: str) -> tuple[int, int] | None:
    """`(2, 13)` of `2.13.0+cpu`; None if it does not start with two numbers."""
    match = re.match(r"(\d{1,3})\.(\d{1,3})", version)
    return (int(match[1]), int(match[2])) if match else None


def choose(version: str | None, cxx11_abi: bool | None) -> tuple[TorchLayout, str | None]:
    """The layout of a torch version, and why it is not complete; None if it is."""
    release = parse_version(version or "")
    if release is None:
        return TorchLayout(), "torch's version is not known: names and times only"
    number = release[0] * 1000 + release[1]
    if not FIRST <= release <= LAST:
        reason = f"torch {version} is not in the table of layouts: names and times only"
        return TorchLayout(version=number), reason
    if cxx11_abi is None:
        layout = TorchLayout(version=number, thread_id=_THREAD_ID, scope=_SCOPE)
        return layout, "torch's std::string ABI is not known: no sequence numbers"
    return _complete(release, number, cxx11_abi), None


def _complete(release: tuple[int, int], number: int, cxx11_abi: bool) -> TorchLayout:
    index = _NAME + _STRING_BYTES[cxx11_abi]
    seq = index + 8
    inputs = seq + 8
    keywords = _KEYWORD_INPUTS_BYTES if release >= KEYWORD_INPUTS_SINCE else 0
    return TorchLayout(
        version=number,
        cxx11_abi=int(cxx11_abi),
        thread_id=_THREAD_ID,
        scope=_SCOPE,
        fn_index=index,
        seq=seq,
        inputs=inputs,
        forward_thread_id=inputs + _INPUTS_BYTES + keywords + _OUTPUTS_BYTES,
    )
