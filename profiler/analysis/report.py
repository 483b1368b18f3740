"""From a capture to a report, and to its small `steps` and `collectives` tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gputap.profiler import schema
from gputap.profiler.analysis.attribution import attribute
from gputap.profiler.analysis.collectives import (
    collective_rows,
    collective_union,
    merge_collectives,
)
from gputap.profiler.analysis.compiles import compilations
from gputap.profiler.analysis.device_load import (
    CALL_COLUMNS,
    DEVICE_COLUMNS,
    call_rows,
    device_rows,
)
from gputap.profiler.analysis.device_report import Gpu, gpu_of
from gputap.profiler.analysis.device_time import merge_kernels
from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.findings import judge
from gputap.profiler.analysis.groups import groups_of
from gputap.profiler.analysis.intervals import Mask, containing, union
from gputap.profiler.analysis.load import EVENT_COLUMNS, RankData, rank_data
from gputap.profiler.analysis.memory import (
    SAMPLE_COLUMNS,
    Readings,
    memory_readings,
    memory_totals,
    step_memory,
)
from gputap.profiler.analysis.model import Abstained, Phases, Rank, Report, Step
from gputap.profiler.analysis.modules import ModuleTotal, merge_modules, module_totals
from gputap.profiler.analysis.nccl import NCCL_COLUMNS, NcclCalls, nccl_calls
from gputap.profiler.analysis.operators import OpTotal, merge_operators, operator_totals
from gputap.profiler.analysis.overhead import overhead
from gputap.profiler.analysis.phases import StepPhases, step_phases
from gputap.profiler.analysis.reads import read_backs
from gputap.profiler.analysis.steps import Cuts, cut_steps
from gputap.profiler.analysis.track import OPTIMIZER_STEP, Track
from gputap.profiler.capture import MOST_EVENTS
from gputap.profiler.clock import format_duration
from gputap.profiler.manifest import RankManifest
from gputap.profiler.schema import EventKind

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.capture import Capture


@dataclass(frozen=True)
class RankResult:
    """What one rank gives: facts for the rules, and rows for the tables."""

    facts: RankFacts
    modules: list[ModuleTotal]
    base_ns: int
    """Time that shares of operators and modules refer to."""
    steps: pa.Table
    collectives: pa.Table
    launches: pa.Table | None


def analyse(capture: Capture) -> Report:
    """The report of a capture, rank by rank; memory is that of the largest rank."""
    results = [analyse_rank(*analysed_part(capture, r)) for r in capture.ranks]
    manifest = capture.manifest
    return build_report(
        results,
        left_out=_left_out(capture, results),
        job=manifest.job,
        level=manifest.level,
        level_reasons=manifest.level_reasons,
        simulated=manifest.simulated,
    )


def analysed_part(capture: Capture, rank: RankManifest) -> tuple[RankData, RankManifest]:
    """A rank's newest events, and its manifest as if the window had begun with them."""
    data = load_rank(capture, rank)
    if capture.rows("events", rank.rank) == len(data.events) + len(data.flights):
        return data, rank
    start, end = data.window
    share = (end - start) / rank.window_ns if rank.window_ns else 1.0
    recorded, seen = rank.recorded_ns, rank.scopes_seen_ns
    return data, replace(
        rank,
        window_start_ns=start,
        recorded_ns=None if recorded is None else round(recorded * share),
        scopes_seen_ns=None if seen is None else round(seen * share),
        events=len(data.events) + len(data.flights),
    )


def load_rank(capture: Capture, rank: RankManifest) -> RankData:
    """One rank's events from a capture: at most `MOST_EVENTS`, the newest."""
    import pyarrow.compute as pc

    events = capture.table("events", EVENT_COLUMNS, rank.rank, last_rows=MOST_EVENTS)
    start = rank.window_start_ns
    if events.num_rows < capture.rows("events", rank.rank):
        start = pc.min(events.column("start_ns")).as_py()
    data = rank_data(
        events,
        rank=rank.rank,
        stacks=capture.table("stacks", rank=rank.rank),
        threads=capture.table("threads", rank=rank.rank),
        window=(start, rank.window_end_ns),
        mode=rank.mode,
        bursts=rank.bursts,
        scopes_seen_ns=rank.scopes_seen_ns,
    )
    return replace(
        data,
        **load_device(capture, rank),
        memory=load_memory(capture, rank),
        nccl=load_nccl(capture, rank),
    )


def load_nccl(capture: Capture, rank: RankManifest) -> NcclCalls | None:
    """What libraries other than torch asked NCCL for; None if nothing."""
    if not capture.rows("nccl_calls", rank.rank):
        return None
    return nccl_calls(capture.table("nccl_calls", NCCL_COLUMNS, rank.rank, last_rows=MOST_EVENTS))


def load_memory(capture: Capture, rank: RankManifest) -> tuple[Readings, ...]:
    """What torch's allocator told of a rank, by device."""
    if not capture.rows("samples", rank.rank):
        return ()
    samples = capture.table("samples", SAMPLE_COLUMNS, rank.rank, last_rows=MOST_EVENTS)
    return memory_readings(samples)


def load_device(capture: Capture, rank: RankManifest) -> dict[str, Any]:
    """`device` and `calls` of a rank: at most `MOST_EVENTS` of each, the newest; {} if none."""
    if not capture.rows("device", rank.rank):
        return {}
    device = capture.table("device", DEVICE_COLUMNS, rank.rank, last_rows=MOST_EVENTS)
    calls = capture.table("cuda_api", CALL_COLUMNS, rank.rank, last_rows=MOST_EVENTS)
    return {"device": device_rows(device), "calls": call_rows(calls)}


def step_rows(capture: Capture, rank: RankManifest) -> pa.Table:
    """Rows of `schema.STEPS` for one rank."""
    return analyse_rank(*analysed_part(capture, rank)).steps


def derived_tables(capture: Capture, rank: RankManifest) -> dict[str, pa.Table]:
    """The tables that analysis adds to a capture at its end, by name: steps, collectives."""
    result = analyse_rank(*analysed_part(capture, rank))
    tables = {"steps": result.steps, "collectives": result.collectives}
    return tables if result.launches is None else {**tables, "launches": result.launches}


def analyse_rank(data: RankData, manifest: RankManifest) -> RankResult:
    """All that can be said from one rank's events alone."""
    cuts, thread = cut_steps(data)
    phases = step_phases(thread, cuts)
    chosen, base_ns = _chosen(data, cuts, manifest)
    place = attribute(data, thread.tid)
    gpu = gpu_of(data, place, cuts)
    totals = operator_totals(data, place, chosen)
    collectives = collective_rows(
        data,
        cuts,
        groups=groups_of(manifest),
        recorder=manifest.target.get("flight_recorder"),
        launches=gpu.launches if gpu else None,
    )
    gc = data.events.of_kind(EventKind.GC)
    memory = step_memory(cuts, data.memory)
    allocated, unread = memory["memory_allocated"]
    facts = RankFacts(
        summary=_summary(data, manifest, cuts, phases, gpu),
        target=manifest.target,
        cuts=cuts,
        phases=phases,
        operators=gpu.operators(totals) if gpu else totals,
        gc_pauses_ns=(data.events.end - data.events.start)[gc],
        exposed_ns=_exposed(thread, cuts),
        compiles=compilations(data, manifest.target),
        optimizers=_optimizers(data),
        collectives=collectives,
        device=gpu.time if gpu else None,
        reads=read_backs(thread, cuts),
        memory_steps=np.flatnonzero(~unread),
        memory_allocated=allocated[~unread],
    )
    modules = module_totals(data, place, chosen, gpu.by_module if gpu else None)
    steps = _step_table(cuts, phases, gpu, memory)
    return RankResult(facts, modules, base_ns, steps, collectives, gpu.table if gpu else None)


def build_report(
    results: Sequence[RankResult],
    *,
    job: str = "",
    level: str = "framework",
    level_reasons: tuple[str, ...] = (),
    simulated: bool = False,
    left_out: tuple[Abstained, ...] = (),
) -> Report:
    """Put the ranks together and judge."""
    base_ns = sum(r.base_ns for r in results)
    operators: list[list[OpTotal]] = [r.facts.operators for r in results]
    facts = Facts(
        level=level,
        level_reasons=level_reasons,
        ranks=tuple(r.facts for r in results),
        operators=merge_operators(operators, base_ns),
        modules=merge_modules([r.modules for r in results], base_ns),
        collectives=merge_collectives([r.collectives for r in results]),
    )
    findings, abstained = judge(facts)
    modes = {r.facts.summary.mode for r in results}
    return Report(
        level=level,
        level_reasons=level_reasons,
        mode=modes.pop() if len(modes) == 1 else "mixed" if modes else "",
        job=job,
        target=dict(results[0].facts.target) if results else {},
        ranks=tuple(r.facts.summary for r in results),
        operators=facts.operators,
        modules=facts.modules,
        collectives=facts.collectives,
        findings=findings,
        abstained=(*left_out, *abstained),
        kernels=merge_kernels([r.facts.device for r in results]),
        unjoined=_unjoined(results),
        simulated=simulated,
    )


def _unjoined(results: Sequence[RankResult]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for result in results:
        total.update(result.facts.device.unjoined if result.facts.device else {})
    return dict(total)


def _left_out(capture: Capture, results: Sequence[RankResult]) -> tuple[Abstained, ...]:
    """What a long capture has beyond the events that were looked at."""
    seen = sum(r.facts.summary.overhead.events for r in results)
    there = capture.rows("events")
    if seen >= there:
        return ()
    spans = max(r.facts.summary.window_ns for r in results)
    reason = (
        f"the verdict and the table of steps rest on the newest {seen:,} of {there:,} events"
        f" ({format_duration(spans)}); `gputap query` sees all"
    )
    return (Abstained("whole_window", reason),)


def _chosen(data: RankData, cuts: Cuts, manifest: RankManifest) -> tuple[Mask, int]:
    """Events of whole recorded steps and those steps' time; everything where no steps are."""
    good = cuts.whole & cuts.recorded
    if good.any():
        start, end = cuts.start[good], cuts.end[good]
        return containing(data.events.start, start, end) >= 0, int((end - start).sum())
    window = data.window[1] - data.window[0]
    base = window if manifest.recorded_ns is None else manifest.recorded_ns
    return np.ones(len(data.events), np.bool_), base


def _summary(
    data: RankData, manifest: RankManifest, cuts: Cuts, phases: StepPhases, gpu: Gpu | None
) -> Rank:
    good = cuts.whole & cuts.recorded
    duration = (cuts.end - cuts.start)[cuts.whole]
    window_ns = manifest.window_ns or data.window[1] - data.window[0]
    gc = data.events.take(data.events.of_kind(EventKind.GC))
    steps = _steps(cuts, phases, gpu)
    return Rank(
        rank=manifest.rank,
        world_size=manifest.world_size,
        host=manifest.host,
        pid=manifest.pid,
        window_ns=window_ns,
        breakdown=gpu.time.breakdown if gpu else None,
        phases=_phase_sum(phases, good) if good.any() else None,
        gap_ns=int(phases.gap_ns[good].sum()) if good.any() else None,
        gc_ns=int(union(gc.start, gc.end).before[-1]),
        steps_found=int(cuts.whole.sum()),
        steps_recorded=int(good.sum()),
        median_step_ns=int(np.median(duration)) if len(duration) else None,
        steps=steps,
        overhead=overhead(
            cuts,
            window_ns=window_ns,
            recorded_ns=manifest.recorded_ns,
            pause_ns=manifest.pause_ns,
            events=manifest.events or len(data.events) + len(data.flights),
            dropped=manifest.dropped,
        ),
        mode=data.mode,
        devices=_devices(manifest, gpu) if gpu else (),
        memory=memory_totals(cuts, data.memory),
    )


def _devices(manifest: RankManifest, gpu: Gpu) -> tuple[str, ...]:
    names = manifest.device.devices if manifest.device else {}
    return tuple(names.get(str(n)) or f"GPU {n}" for n in gpu.time.devices)


def _phase_sum(phases: StepPhases, steps: Mask) -> Phases:
    return Phases(
        *(int(column[steps].sum()) for column in _phase_columns(phases)),
    )


def _phase_columns(phases: StepPhases) -> tuple[Any, ...]:
    return (
        phases.data_wait_ns,
        phases.forward_ns,
        phases.backward_ns,
        phases.optimizer_ns,
        phases.other_ns,
    )


def _steps(cuts: Cuts, phases: StepPhases, gpu: Gpu | None) -> tuple[Step, ...]:
    columns = [column.tolist() for column in _phase_columns(phases)]
    rest = (
        cuts.start,
        cuts.end - cuts.start,
        cuts.recorded,
        cuts.whole,
        phases.micro_steps,
        phases.gap_ns,
        phases.gc_ns,
        phases.collective_ns,
        phases.events,
    )
    busy: list[int | None] = gpu.busy_ns.tolist() if gpu else [None] * len(cuts)
    rows = zip(zip(*columns, strict=True), *(c.tolist() for c in rest), busy, strict=True)
    return tuple(
        Step(
            step=number,
            start_ns=start,
            dur_ns=length,
            recorded=recorded,
            whole=whole,
            boundary=cuts.boundary,
            micro_steps=micro,
            phases=Phases(*parts),
            gap_ns=gap if gap >= 0 else None,
            gc_ns=gc,
            collective_ns=collective,
            events=events,
            gpu_busy_ns=gpu_busy,
        )
        for number, (
            parts,
            start,
            length,
            recorded,
            whole,
            micro,
            gap,
            gc,
            collective,
            events,
            gpu_busy,
        ) in enumerate(rows)
    )


def _step_table(
    cuts: Cuts, phases: StepPhases, gpu: Gpu | None, memory: Mapping[str, tuple[Any, Mask]]
) -> pa.Table:
    import pyarrow as pa

    size = len(cuts)
    unmeasured = phases.gap_ns < 0
    columns: Mapping[str, Any] = {
        "step": pa.array(np.arange(size, dtype=np.int64)),
        "start_ns": pa.array(cuts.start),
        "duration_ns": pa.array(cuts.end - cuts.start),
        "tid": pa.array(np.full(size, cuts.tid, np.int32)),
        "boundary": pa.array([cuts.boundary] * size, pa.string()).dictionary_encode(),
        "recorded": pa.array(cuts.recorded),
        "whole": pa.array(cuts.whole),
        "micro_steps": pa.array(phases.micro_steps.astype(np.int32)),
        "data_wait_ns": pa.array(phases.data_wait_ns),
        "forward_ns": pa.array(phases.forward_ns),
        "backward_ns": pa.array(phases.backward_ns),
        "optimizer_ns": pa.array(phases.optimizer_ns),
        "other_ns": pa.array(phases.other_ns),
        "gap_ns": pa.array(phases.gap_ns, mask=unmeasured),
        "gc_ns": pa.array(phases.gc_ns),
        "collective_ns": pa.array(phases.collective_ns),
        "events": pa.array(phases.events),
        "gpu_busy_ns": pa.array(gpu.busy_ns) if gpu else pa.nulls(size, pa.int64()),
        **{name: pa.array(values, mask=none) for name, (values, none) in memory.items()},
    }
    target = schema.arrow_schema(schema.STEPS)
    return pa.Table.from_arrays([columns[f.name] for f in target], schema=target)


def _exposed(thread: Track, cuts: Cuts) -> Any:
    """Per step: time with a collective in flight while the step thread has no other work."""
    events = thread.data.events
    flights = collective_union(thread.data)
    rows = thread.work[~events.of_kind(EventKind.COLLECTIVE)[thread.work]]
    low = np.concatenate([flights.start, events.start[rows]])
    high = np.concatenate([flights.end, events.end[rows]])
    both = union(low, high).covered(cuts.start, cuts.end)
    alone = union(events.start[rows], events.end[rows]).covered(cuts.start, cuts.end)
    return both - alone


def _optimizers(data: RankData) -> tuple[str, ...]:
    names = [n for n in data.events.names if n.startswith(OPTIMIZER_STEP)]
    return tuple(sorted({n.removeprefix(OPTIMIZER_STEP).removesuffix(".step") for n in names}))
