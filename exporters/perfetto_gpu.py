"""The GPUs of a rank in a Perfetto trace: a track per stream, arrows from the calls to the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gputap.exporters.nesting import Bools, Ints
from gputap.exporters.perfetto_encode import Annotation, Slices, Track
from gputap.exporters.source import NO_CODE, NULL, CaptureSource, Columns, Text, read

if TYPE_CHECKING:
    from gputap.exporters.perfetto_writer import Writer
    from gputap.profiler.manifest import RankManifest

_DEVICE: Final = (
    "start_ns", "duration_ns", "kind", "name", "short_name", "category", "device_id", "stream_id",
    "correlation_id", "graph_id", "graph_node_id", "bytes", "src_kind", "dst_kind", "grid_x",
    "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers", "static_shared",
    "dynamic_shared",
)  # fmt: skip
_CALLS: Final = ("start_ns", "duration_ns", "tid", "name", "correlation_id")
_ARGUMENTS: Final = tuple(n for n in _DEVICE if n not in ("start_ns", "duration_ns", "short_name"))
_WORK: Final = ("kernel", "memcpy", "memset", "graph")

_PLACE: Final = 1 << 20
"""Below all threads."""

_RANK_BITS: Final = 40
_CALL_FLOWS: Final = 1 << 39
"""Ids of these arrows begin here; those of forward to backward are below."""


class Gpus:
    """What one rank's GPUs did, and the calls that asked for it."""

    def __init__(self, capture: CaptureSource, rank: RankManifest) -> None:
        """Read both tables; empty below level `device`."""
        self._rank = rank
        self.device = read(capture, "device", _DEVICE, rank.rank)
        self.calls = read(capture, "cuda_api", _CALLS, rank.rank)
        self._in, self.calls_out = self._arrows()

    @property
    def flows(self) -> int:
        """Arrows from calls to work."""
        return int((self.calls_out != 0).sum())

    def _arrows(self) -> tuple[Ints, Ints]:
        """Flow id that arrives at each row of the device, and that leaves each call; 0 for none.

        The first piece of work of a call has its arrow: a graph's launch is one call for many.
        """
        arriving = np.zeros(len(self.device), np.int64)
        leaving = np.zeros(len(self.calls), np.int64)
        work = np.flatnonzero(self._is(_WORK) & (self.device.ints["correlation_id"] != NULL))
        ids, first = np.unique(self.device.ints["correlation_id"][work], return_index=True)
        known, at_call, at_id = np.intersect1d(
            self.calls.ints["correlation_id"], ids, return_indices=True
        )
        flow = (self._rank.rank + 1) * (1 << _RANK_BITS) + _CALL_FLOWS + np.arange(len(known))
        leaving[at_call] = flow
        arriving[work[first[at_id]]] = flow
        return arriving, leaving

    def _is(self, kinds: tuple[str, ...]) -> Bools:
        kind = self.device.texts["kind"]
        found: Bools = kind.lookup(np.array([w in kinds for w in kind.words], bool), False)
        return found

    def draw(self, writer: Writer, process: Track) -> None:
        """A track per stream, and one for what CUPTI itself cost."""
        if not len(self.device):
            return
        work = self._is(_WORK)
        device, stream = self.device.ints["device_id"], self.device.ints["stream_id"]
        names = self._rank.device.devices if self._rank.device else {}
        for number in np.unique(device[work]).tolist():
            name = f"GPU {number} {names.get(str(number), '')}".strip() if number != NULL else "GPU"
            gpu = writer.child(process, name, _PLACE + max(number, 0))
            for place, at in enumerate(np.unique(stream[work & (device == number)]).tolist()):
                rows = np.flatnonzero(work & (device == number) & (stream == at))
                title = f"stream {at}" if at != NULL else "stream unknown"
                writer.draw_on_lanes(gpu, title, place, self._slices(rows))
        overhead = np.flatnonzero(self._is(("overhead",)))
        if len(overhead):
            writer.draw_on_lanes(process, "CUPTI overhead", _PLACE - 1, self._slices(overhead))

    def _slices(self, rows: Ints) -> Slices:
        some = self.device.take(rows)
        arguments = tuple(
            Annotation(name, text=some.texts[name])
            if name in some.texts
            else Annotation(name, ints=some.ints[name])
            for name in _ARGUMENTS
        )
        return Slices(
            some.start_ns, some.end_ns, np.zeros(len(some), np.int64), some.texts["short_name"],
            some.texts["category"], arguments, None, self._in[rows],
        )  # fmt: skip


def with_calls(events: Columns, calls: Columns) -> Columns:
    """Events and calls of the same threads in one table, by start; calls are of kind `cuda_api`.

    Columns that calls do not have are null; calls lie inside events of the same extent.
    """
    if not len(calls):
        return events
    count = len(calls)
    deepest = np.full(count, np.iinfo(np.int16).max, np.int64)
    given = {"depth": deepest, "flags": np.zeros(count, np.int64)}
    ints = {
        name: np.concatenate([column, given.get(name, calls.ints.get(name, np.full(count, NULL)))])
        for name, column in events.ints.items()
    }
    own = {"name": calls.texts["name"], "kind": Text(np.zeros(count, np.int64), ("cuda_api",))}
    nothing = Text(np.full(count, NO_CODE), ())
    texts = {name: joined(text, own.get(name, nothing)) for name, text in events.texts.items()}
    return Columns(ints, texts, len(events) + count)


def joined(first: Text, second: Text) -> Text:
    """One column after another."""
    place = {word: i for i, word in enumerate(dict.fromkeys((*first.words, *second.words)))}
    table = np.array([place[word] for word in second.words], np.int64)
    return Text(np.concatenate([first.codes, second.lookup(table, NO_CODE)]), tuple(place))
