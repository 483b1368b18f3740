"""Streams, events and the current device, in the shape of torch.cuda's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from simcuda import _load

backend = _load.backend()


class Stream(torch.Stream):
    """A stream of the device; its `cuda_stream` is the handle that the runtime knows."""

    def __new__(cls, device: int | torch.device | None = None, priority: int = 0) -> Stream:
        index = device.index if isinstance(device, torch.device) else device
        where = torch.device("simcuda", backend.current_device() if index is None else index)
        return super().__new__(cls, where, priority=priority)

    @property
    def cuda_stream(self) -> int:
        """The stream's cudaStream_t as a number."""
        return int(backend.stream_handle(self.device_index, self.stream_id))


Event = partial(torch.Event, "simcuda")
"""An event of the device; `enable_timing=True` as in torch.cuda. No class: torch wants its own."""


def _index(which: int | str | torch.device | None) -> int:
    if which is None:
        return int(backend.current_device())
    index = which if isinstance(which, int) else torch.device(which).index
    return int(backend.current_device()) if index is None else index


def current_stream(which: int | str | torch.device | None = None) -> torch.Stream:
    """The calling thread's stream on a device."""
    return torch.accelerator.current_stream(_index(which))


def default_stream(which: int | str | torch.device | None = None) -> torch.Stream:
    """The legacy default stream."""
    return torch.Stream(stream_id=0, device_index=_index(which), device_type=_type())


def set_stream(to: torch.Stream) -> None:
    """Make `to` the calling thread's stream."""
    torch.accelerator.set_stream(to)


@contextmanager
def stream(to: torch.Stream | None) -> Iterator[None]:
    """Run a block on the stream `to`."""
    if to is None:
        yield
        return
    before = current_stream(to.device_index)
    set_stream(to)
    try:
        yield
    finally:
        set_stream(before)


@contextmanager
def device(which: int | str | torch.device) -> Iterator[None]:
    """Run a block with another current device."""
    before = backend.current_device()
    backend.set_device(_index(which))
    try:
        yield
    finally:
        backend.set_device(before)


def synchronize(which: int | str | torch.device | None = None) -> None:
    """Wait for everything on the device."""
    torch.accelerator.synchronize(_index(which))


def _type() -> int:
    # The number that torch.Stream wants: c10::DeviceType::PrivateUse1.
    return 20
