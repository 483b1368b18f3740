"""Counter tracks of a rank in a Perfetto trace: what torch's allocator held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gputap.exporters import protobuf as pb
from gputap.exporters.source import CaptureSource, Ints
from gputap.profiler.analysis.memory import SAMPLE_COLUMNS, memory_readings
from gputap.profiler.memory_samples import METRICS

if TYPE_CHECKING:
    from gputap.exporters.perfetto_encode import Track
    from gputap.exporters.perfetto_writer import Writer
    from gputap.profiler.manifest import RankManifest

_PLACE: Final = (1 << 20) - 2
"""Above the GPUs, which they tell of."""

_COUNTER: Final = 4
_UNITS: Final = {"By": pb.uint(3, 3)}
_COUNT: Final = pb.uint(3, 2)


def draw_memory(writer: Writer, capture: CaptureSource, rank: RankManifest, process: Track) -> None:
    """A counter track for each of the allocator's figures that is ever above zero, by device."""
    samples = capture.table("samples", columns=list(SAMPLE_COLUMNS), rank=rank.rank)
    for one in memory_readings(samples):
        for metric, unit in METRICS:
            values = one.values[metric]
            if values.any():
                name = f"{metric.removeprefix('gputap.').replace('.', ' ')} {one.device}"
                _draw(writer, process, name, _UNITS.get(unit, _COUNT), one.time, values)


def _draw(
    writer: Writer,
    process: Track,
    name: str,
    unit: bytes,
    time_ns: Ints,
    values: Ints,
) -> None:
    track = writer.track()
    writer.describe(
        pb.uint(1, track.uuid) + pb.uint(5, process.uuid) + pb.text(2, name) + pb.data(8, unit)
        + pb.uint(12, _PLACE)
    )  # fmt: skip
    packets = (
        pb.uint(8, time) + pb.uint(10, track.sequence)
        + pb.data(11, pb.uint(9, _COUNTER) + pb.uint(11, track.uuid) + pb.uint(30, value))
        for time, value in zip(time_ns.tolist(), values.tolist(), strict=True)
    )  # fmt: skip
    writer.file.write(b"".join(pb.data(1, packet) for packet in packets))
    writer.counters += len(values)
