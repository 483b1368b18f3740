"""From CUPTI's raw records to the tables `device` and `cuda_api` of a capture.

Memory is bounded: raw records are decoded and handed on whenever there are `PART_BYTES` of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.clock import Clock, SessionClock
from gputap.profiler.columns import numbers
from gputap.profiler.cupti.abi import ActivityKind
from gputap.profiler.cupti.decode import Decoded, decode
from gputap.profiler.cupti.rows import Rows
from gputap.profiler.cupti.tables import cuda_api_table, device_table

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.device_memory import Chunk, DeviceMemory
    from gputap.profiler.ingest import Sink

PART_BYTES: Final = 24 << 20
"""Raw bytes at which a part is written: some 110,000 kernels."""

PART_SECONDS: Final = 30.0

_STEP_NS: Final = 1_000_000
"""CUPTI's clock moved so far against ours between two samples: somebody set it."""

Ints = npt.NDArray[np.int64]


class DeviceIngest:
    """Reads what the agent copies from CUPTI. Call `poll` often, `finish` at the end."""

    def __init__(
        self,
        memory: DeviceMemory,
        sink: Sink,
        *,
        strings: Callable[[int], Sequence[str]],
        clock: Callable[[], Clock],
        host_tids: Mapping[int, int],
    ) -> None:
        """`strings(highest)` are the interned strings up to that id at least, by id.

        `clock` gives the clock of the agent's ticks by all samples so far.
        """
        self._memory = memory
        self._sink = sink
        self._strings = strings
        self._host_clock = clock
        self._host_tids = host_tids
        self._clock = SessionClock(offset_ns=0)
        self._clock_at = 0
        self._last_offset: int | None = None
        self._decoded: list[Decoded] = []
        self._bytes = 0
        self._oldest = 0.0
        self.window_start_ns: int | None = None
        """What ended before is not kept."""
        self.rows = 0
        """Rows of `device` handed on."""
        self.calls = 0
        """Rows of `cuda_api` handed on."""
        self.clock_steps = 0
        """How often CUPTI's clock was set while we looked."""
        self.lost = dict.fromkeys(("unknown_kind", "nonsense", "zero_times"), 0)
        """Records that were left out, by cause."""
        self.devices: dict[int, str] = {}
        """Names of the devices by CUDA's number."""

    @property
    def error_ns(self) -> int:
        """Bound on the difference between CUPTI's times and unix time as gputap writes it."""
        return self._clock.clock().error_ns + self._host_clock().error_ns

    def poll(self) -> None:
        """Take what has come; write a part if it is due."""
        for chunk in self._memory.drain(PART_BYTES):
            self._take(chunk)
        late = self._decoded and time.monotonic() - self._oldest >= PART_SECONDS
        if self._bytes >= PART_BYTES or late:
            self.flush()

    def finish(self) -> None:
        """Take and write all that is left."""
        while chunks := self._memory.drain(PART_BYTES):
            for chunk in chunks:
                self._take(chunk)
            self.flush()
        self.flush()
        self._learn_clock()

    def flush(self) -> None:
        """Hand everything taken to the sink as one part of each table."""
        if not self._decoded:
            return
        decoded, self._decoded, self._bytes = self._decoded, [], 0
        self._learn_clock()
        texts = self._texts(decoded)
        self._learn_devices(decoded, texts)
        device = self._in_window(device_table(decoded, texts, self._to_unix))
        calls = self._in_window(cuda_api_table(without_nested(decoded), self._to_unix))
        self.rows += device.num_rows
        self.calls += calls.num_rows
        self._sink("device", device)
        self._sink("cuda_api", self._host_threads(calls))

    # ------------------------------------------------------------------------------ parts of it

    def _take(self, chunk: Chunk) -> None:
        if not self._decoded:
            self._oldest = time.monotonic()
        decoded = decode(chunk.data, chunk.offsets, chunk.version)
        self._decoded.append(decoded)
        self._bytes += len(chunk.data)
        self.lost["unknown_kind"] += decoded.unknown_kind
        self.lost["zero_times"] += decoded.zero_times
        nonsense = decoded.too_short + decoded.backwards + decoded.unreal_times
        self.lost["nonsense"] += nonsense + decoded.bad_offset

    def _learn_clock(self) -> None:
        """Samples of CUPTI's clock against ticks, as samples of it against unix time."""
        samples, self._clock_at = self._memory.clock_samples(self._clock_at)
        if not len(samples):
            return
        clock = self._host_clock()
        unix = clock.to_unix_ns(samples["ticks"])
        device = samples["device_ns"].astype(np.int64)
        width = clock.to_unix_ns(samples["ticks"] + samples["width_ticks"]) - unix
        offsets = (device - unix).tolist()
        for offset in offsets:
            before, self._last_offset = self._last_offset, offset
            self.clock_steps += before is not None and abs(offset - before) > _STEP_NS
        as_samples = np.zeros(len(samples), schema.dtype(schema.CLOCK_SAMPLE))
        as_samples["ticks"], as_samples["mono_ns"] = device, unix
        as_samples["unix_ns"], as_samples["width_ticks"] = unix, width
        self._clock.add(as_samples)

    def _to_unix(self, times: Ints) -> Ints:
        return self._clock.clock().to_unix_ns(times)

    def _texts(self, decoded: Sequence[Decoded]) -> Sequence[str]:
        columns = [part.kernels["name"] for part in decoded if len(part.kernels)]
        columns += [part.devices["name"] for part in decoded if len(part.devices)]
        return self._strings(max((int(ids.max()) for ids in columns), default=0))

    def _learn_devices(self, decoded: Sequence[Decoded], texts: Sequence[str]) -> None:
        for part in decoded:
            rows = part.devices
            for number, name in zip(rows["id"].tolist(), rows["name"].tolist(), strict=True):
                self.devices[number] = texts[name] if name < len(texts) else ""

    def _in_window(self, rows: pa.Table) -> pa.Table:
        import pyarrow.compute as pc

        if self.window_start_ns is None or not rows.num_rows:
            return rows
        end = pc.add(rows.column("start_ns"), rows.column("duration_ns"))
        return rows.filter(pc.greater_equal(end, self.window_start_ns))

    def _host_threads(self, calls: pa.Table) -> pa.Table:
        """Thread ids of the target's pid namespace to ours."""
        if not calls.num_rows:
            return calls
        tids, of_row = np.unique(calls.column("tid").to_numpy(), return_inverse=True)
        ours = [self._host_tid(tid) for tid in tids.tolist()]
        column = numbers(np.array(ours, np.int32)[of_row])
        return calls.set_column(
            calls.schema.get_field_index("tid"), calls.schema.field("tid"), column
        )

    def _host_tid(self, tid: int) -> int:
        try:
            return self._host_tids[tid]
        except KeyError:
            return tid


def without_nested(decoded: Sequence[Decoded]) -> list[Decoded]:
    """The same without the calls of the driver that a recorded call of the runtime made.

    Both have the same correlation id; the outer one is what the program did.
    """
    calls = [part.api_calls for part in decoded if len(part.api_calls)]
    if not calls:
        return list(decoded)
    outer = [part["correlation_id"][part["kind"] == ActivityKind.RUNTIME] for part in calls]
    known = np.unique(np.concatenate(outer))
    out = []
    for part in decoded:
        rows = part.api_calls
        nested = (rows["kind"] == ActivityKind.DRIVER) & np.isin(rows["correlation_id"], known)
        out.append(replace(part, api_calls=_where(rows, ~nested)) if nested.any() else part)
    return out


def _where(rows: Rows, keep: npt.NDArray[np.bool_]) -> Rows:
    columns = {name: column[keep] for name, column in rows.columns.items()}
    return Rows(int(np.count_nonzero(keep)), columns)
