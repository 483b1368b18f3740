"""A memory snapshot of one process, on request: PyTorch's own, in its own format.

What the target pickled is never unpickled here: it is somebody else's data, and a pickle may hold
code. It is written to a file for PyTorch's viewer, which does not run it.
"""

from __future__ import annotations

import binascii
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gputap.injectors.built import AGENT, built
from gputap.injectors.entry import Entry, enter
from gputap.injectors.library import ask
from gputap.injectors.library.client import AgentClient, SnippetFailed
from gputap.injectors.tap import AUTO, look
from gputap.profiler.errors import CaptureNotWritable, ProfilerError
from gputap.profiler.files import whole_file

ANSWER_S: Final = 60.0
"""For listing, pickling and packing, and a machine under load."""

MOST_BYTES: Final = 4 << 30
"""Unpacked; the packed form of more does not come through."""


class NoSnapshot(ProfilerError):
    """The target gave none."""

    help = "The target was left as it was."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was written, as the target described it. Sizes in bytes, times in seconds."""

    path: str
    bytes: int
    device: str
    segments: int
    allocated: int
    reserved: int
    events: int
    """Of the allocator's history; 0 where none was recorded."""
    history: str
    """`none`, `ours` (recorded for this snapshot) or `the job's`."""
    standstill_s: float
    """How long Python in the target could do nothing else."""


def take_snapshot(pid: int, path: Path, *, record_s: float = 0.0, entry: Entry = AUTO) -> Snapshot:
    """Have torch in process `pid` make a memory snapshot, and write it to `path`.

    `record_s`: record the allocator's history for so long first. Raises an error of the target's
    tree, NoSnapshot, or CaptureNotWritable; the file appears whole or not at all.
    """
    if path.is_dir():
        raise CaptureNotWritable(f"{path} is a directory.", hint="Give the name of a file.")
    with ExitStack() as stack:
        # Opened before the target is asked, which must not stand still in vain.
        with _writing(path):
            file = stack.enter_context(whole_file(path))
        said = _asked(pid, record_s, entry)
        try:
            snapshot = _described(said, path)
            raw = _unpacked(said, snapshot.bytes)
        except (KeyError, TypeError, ValueError, zlib.error) as exc:
            raise NoSnapshot(f"pid {pid} gave a snapshot that makes no sense: {exc!r}.") from exc
        with _writing(path):
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
            stack.close()
    return snapshot


def _asked(pid: int, record_s: float, entry: Entry) -> dict[str, Any]:
    injection = enter(look(pid), agent=built(AGENT), entry=entry)
    with AgentClient(pid, injection.control_fd) as client:
        try:
            said = ask.snapshot(client, record_s=record_s, timeout_s=record_s + ANSWER_S)
        except SnippetFailed as exc:
            raise NoSnapshot(f"pid {pid} gave no memory snapshot: {exc.message}") from exc
    if problem := said.get("problem"):
        raise NoSnapshot(f"pid {pid} gave no memory snapshot: {problem}.")
    return said


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise CaptureNotWritable(
            f"{path} cannot be written: {exc.strerror or exc}.", hint="Give another with -o FILE."
        ) from exc


def _described(said: dict[str, Any], path: Path) -> Snapshot:
    return Snapshot(
        path=str(path),
        bytes=int(said["bytes"]),
        device=str(said["device"]),
        segments=int(said["segments"]),
        allocated=int(said["allocated"]),
        reserved=int(said["reserved"]),
        events=int(said["events"]),
        history=str(said["history"]),
        standstill_s=float(said["standstill_s"]),
    )


def _unpacked(said: dict[str, Any], size: int) -> bytes:
    if "data" not in said:
        raise NoSnapshot(
            f"The memory snapshot is too large: {int(said['packed_bytes']) >> 20} MiB packed.",
            hint="With a shorter --record, or none, it is smaller.",
        )
    if not 0 < size <= MOST_BYTES:
        raise ValueError(f"{size} bytes")
    raw = zlib.decompressobj().decompress(binascii.a2b_base64(said["data"]), size + 1)
    if len(raw) != size:
        raise ValueError("its length is not the one that was told")
    return raw
