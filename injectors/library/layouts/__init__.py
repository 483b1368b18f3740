"""What the inside of libtorch and of CPython looks like, by version: data and their sources.

Nothing here is believed: `selftest` checks the choice in the target before anything relies on it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from gputap.profiler.schema import Struct, dtype

__all__ = ["Layout", "packed"]


class Layout(Protocol):
    """A dataclass with one attribute per field of its wire struct, padding left out."""

    def packed(self) -> npt.NDArray[np.uint8]:
        """The wire form."""


def packed(struct: Struct, layout: Layout) -> npt.NDArray[np.uint8]:
    """The bytes of `struct` with every field that is not padding taken from `layout`."""
    record = np.zeros(1, dtype(struct))
    for field in struct.fields:
        if not field.name.startswith("pad"):
            record[field.name] = getattr(layout, field.name)
    return record.view(np.uint8)
