"""From CUPTI's raw records to the tables `device` and `cuda_api` of a capture.

Memory is bounded: raw records are decoded and handed on whenever there are `PART_BYTES` of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.clock import MAX_SAMPLES, Clock, SessionClock
from gputap.profiler.columns import numbers
from gputap.profiler.cupti.abi import ActivityKind
from gputap.profiler.cupti.decode import Decoded, decode
from gputap.profiler.cupti.rows import Rows
from gputap.profiler.cupti.tables import cuda_api_table, device_table

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.agent_memory import Records
    from gputap.profiler.device_memory import Chunk, DeviceMemory
    from gputap.profiler.ingest import Sink

PART_BYTES: Final = 24 << 20
"""Raw bytes at which a part is written: some 110,000 kernels."""

PART_SECONDS: Final = 30.0

_STEP_NS: Final = 1_000_000
"""CUPTI's clock moved so far against ours between two samples: somebody set it."""

Ints = npt.NDArray[np.int64]


_NEAR_NS: Final = 1_000_000_000
"""Work is no further from the samples of its clock: CUPTI is asked ten times a second."""


class _Epoch:
    """CUPTI's clock between two settings of it."""

    def __init__(self, samples: Sequence[Records] = ()) -> None:
        self._samples = list(samples)

    def add(self, samples: Records) -> None:
        """Take samples of it, later ones than before."""
        if len(samples):
            self._samples.append(samples)

    def clock(self, host: Clock) -> Clock:
        """CUPTI's time to unix time, by what is known of the agent's clock by now.

        That is made anew for each part: from the first few samples the agent's rate is not known
        well enough, and the samples lie at its edge.
        """
        session = SessionClock(offset_ns=0)
        for samples in self._samples[-MAX_SAMPLES:]:
            session.add(_as_samples(samples, host))
        return session.clock()

    def holds(self, times: Ints) -> npt.NDArray[np.bool_]:
        """Whether times, of which some clock showed each, are by this one."""
        if not self._samples:
            return np.zeros(len(times), np.bool_)
        first, last = self._samples[0]["device_ns"][0], self._samples[-1]["device_ns"][-1]
        near: npt.NDArray[np.bool_] = times <= np.int64(last) + _NEAR_NS
        return near & (times >= np.int64(first) - _NEAR_NS)


def _as_samples(samples: Records, host: Clock) -> Records:
    """Samples of CUPTI's clock against ticks, as samples of it against unix time."""
    unix = host.to_unix_ns(samples["ticks"])
    out = np.zeros(len(samples), schema.dtype(schema.CLOCK_SAMPLE))
    out["ticks"], out["mono_ns"], out["unix_ns"] = samples["device_ns"], unix, unix
    out["width_ticks"] = host.to_unix_ns(samples["ticks"] + samples["width_ticks"]) - unix
    return out


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
        self._epochs = [_Epoch()]
        self._worst_ns = 0
        self._clock_at = 0
        self._last_offset: int | None = None
        self._decoded: list[Decoded] = []
        self._single: list[Decoded] = []
        """Calls of the driver that may still turn out to be the inner half of another."""
        self._bytes = 0
        self._oldest = 0.0
        self.window_start_ticks = 0
        """What ended before is not kept; 0: everything is."""
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
        return self._worst_ns

    def poll(self) -> None:
        """Take what has come; write a part if it is due."""
        self._learn_clock()
        for chunk in self._memory.drain(PART_BYTES):
            self._take(chunk)
        late = self._decoded and time.monotonic() - self._oldest >= PART_SECONDS
        if self._bytes >= PART_BYTES or late:
            self.flush()

    def finish(self) -> None:
        """Take and write all that is left."""
        self._learn_clock()
        while chunks := self._memory.drain(PART_BYTES):
            for chunk in chunks:
                self._take(chunk)
            self.flush()
        self.flush(last=True)

    def flush(self, *, last: bool = False) -> None:
        """Hand everything taken to the sink as one part of each table."""
        if not self._decoded and not (last and self._single):
            return
        decoded, self._decoded, self._bytes = self._decoded, [], 0
        texts = self._texts(decoded)
        self._learn_devices(decoded, texts)
        to_unix = self._converter()
        device = self._in_window(device_table(decoded, texts, to_unix))
        decoded, self._single = without_nested(decoded, self._single, last=last)
        calls = self._in_window(cuda_api_table(decoded, to_unix))
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
        """Take the newest samples of CUPTI's clock.

        Where the clock was set in between, all that came before is converted by the clock before.
        """
        samples, self._clock_at = self._memory.clock_samples(self._clock_at)
        if not len(samples):
            return
        offsets = samples["device_ns"].astype(np.int64) - self._host_clock().to_unix_ns(
            samples["ticks"]
        )
        known = offsets[:1] if self._last_offset is None else [self._last_offset]
        steps = np.flatnonzero(np.abs(np.diff(offsets, prepend=known)) > _STEP_NS)
        self._last_offset = int(offsets[-1])
        first, *later = np.split(samples, steps)
        self._epochs[-1].add(first)
        for part in later:
            self.clock_steps += 1
            self.flush()
            self._epochs.append(_Epoch([part]))

    def _converter(self) -> Callable[[Ints], Ints]:
        """CUPTI's times to unix time, by the newest of its clocks that each time fits.

        What came after the clock was set may still be from before.
        """
        host = self._host_clock()
        clocks = [(epoch, epoch.clock(host)) for epoch in self._epochs]
        self._worst_ns = max(self._worst_ns, clocks[-1][1].error_ns + host.error_ns)

        def convert(times: Ints) -> Ints:
            out = clocks[-1][1].to_unix_ns(times)
            for (newer, _), (_, clock) in pairwise(reversed(clocks)):
                older = ~newer.holds(times)
                if not older.any():
                    break
                out[older] = clock.to_unix_ns(times[older])
            return out

        return convert

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

        if not self.window_start_ticks or not rows.num_rows:
            return rows
        ticks = np.array([self.window_start_ticks], np.int64)
        start = int(self._host_clock().to_unix_ns(ticks)[0])
        end = pc.add(rows.column("start_ns"), rows.column("duration_ns"))
        return rows.filter(pc.greater_equal(end, start))

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


def without_nested(
    decoded: Sequence[Decoded], held: Sequence[Decoded] = (), *, last: bool = True
) -> tuple[list[Decoded], list[Decoded]]:
    """The same without the calls of the driver that a recorded call of the runtime made.

    Both have the same correlation id; the outer one is what the program did, and it comes later.
    Unless this is the last part, calls of the driver alone are held until the next: second answer.
    """
    single: list[Decoded] = []
    calls = [part.api_calls for part in (*held, *decoded) if len(part.api_calls)]
    outer = [rows["correlation_id"][rows["kind"] == ActivityKind.RUNTIME] for rows in calls]
    known = np.unique(np.concatenate(outer)) if outer else np.empty(0, np.uint32)
    out = [_only_calls(part, ~_inner(part.api_calls, known)) for part in held]
    for part in decoded:
        rows = part.api_calls
        inner, driver = _inner(rows, known), rows["kind"] == ActivityKind.DRIVER
        waits = driver & ~inner & (not last)
        if waits.any():
            single.append(_only_calls(Decoded(), waits, rows))
        keep = ~inner & ~waits
        out.append(part if keep.all() else replace(part, api_calls=_where(rows, keep)))
    return out, single


def _inner(rows: Rows, outer: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    inner: npt.NDArray[np.bool_] = (rows["kind"] == ActivityKind.DRIVER) & np.isin(
        rows["correlation_id"], outer
    )
    return inner


def _only_calls(part: Decoded, keep: npt.NDArray[np.bool_], rows: Rows | None = None) -> Decoded:
    return replace(part, api_calls=_where(part.api_calls if rows is None else rows, keep))


def _where(rows: Rows, keep: npt.NDArray[np.bool_]) -> Rows:
    columns = {name: column[keep] for name, column in rows.columns.items()}
    return Rows(int(np.count_nonzero(keep)), columns)
