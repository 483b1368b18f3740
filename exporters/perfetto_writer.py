"""The Perfetto file being written: ids, tracks, slices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, Final

import numpy as np

from gputap.exporters import protobuf as pb
from gputap.exporters.nesting import lanes
from gputap.exporters.perfetto_encode import Slices, Track, encode_track

_FIRST_FREE_ID: Final = 1 << 22
"""The kernel gives out no pid above; used where two ranks have the same."""


@dataclass(slots=True)
class Writer:
    """The open file, the ids given out, and what was written."""

    file: IO[bytes]
    slices: int = 0
    events: int = 0
    lanes: int = 0
    flows: int = 0
    counters: int = 0
    sequence: int = 1
    """1 is the one of descriptors and clocks."""
    uuid: int = 0
    pids: set[int] = field(default_factory=set)

    def track(self) -> Track:
        """A new track, with a packet sequence of its own."""
        self.sequence += 1
        self.uuid += 1
        return Track(self.sequence, self.uuid)

    def own_id(self, wanted: int) -> int:
        """`wanted`, or a number no process or thread has where it is taken or unknown."""
        chosen = wanted
        if wanted <= 0 or wanted in self.pids:
            chosen = max(_FIRST_FREE_ID, *self.pids, 0) + 1
        self.pids.add(chosen)
        return chosen

    def describe(self, descriptor: bytes) -> None:
        """Write a track descriptor."""
        self.file.write(pb.data(1, pb.uint(10, 1) + pb.data(60, descriptor)))

    def draw(self, track: Track, slices: Slices) -> None:
        """Write slices that nest."""
        for chunk in encode_track(track, slices):
            self.file.write(chunk)
        self.slices += len(slices.start_ns)

    def child(self, parent: Track, name: str, place: int) -> Track:
        """A track below another; those of one parent are in the order of `place`."""
        track = self.track()
        self.describe(
            pb.uint(1, track.uuid) + pb.uint(5, parent.uuid) + pb.text(2, name) + pb.uint(12, place)
        )
        return track

    def draw_on_lanes(self, parent: Track, name: str, place: int, slices: Slices) -> None:
        """Draw slices that never nest: each lane holds a row of them one after the other."""
        lane = lanes(slices.start_ns, slices.end_ns)
        for number in range(int(lane.max()) + 1):
            rows = np.flatnonzero(lane == number)
            title = name if number == 0 else f"{name} (overlap {number})"
            track = self.child(parent, title, place)
            self.draw(track, slices.take(rows, np.zeros(len(rows), np.int64)))
            self.lanes += number > 0
