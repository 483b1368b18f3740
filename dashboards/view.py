"""What terminal and page both say: headline, step time, price of looking, facts of the target."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from gputap.dashboards import text
from gputap.profiler.analysis.model import Finding, Memory, Rank, Report, Step

FINDINGS_SHOWN: Final = 5
_MEMORIES_SAID: Final = 4

LEVEL_WORDS: Final = {
    "host": "seen from outside the process; no operators, no GPU kernel times were measured",
    "framework": "CPU-side times; no GPU kernel times were measured",
    "device": "GPU kernel times were measured on the device",
}

MODE_WORDS: Final = {
    "always_on": "steps, loader and optimizer only",
    "bursts": "bursts of whole steps",
    "full": "every operator of every step",
}

PHASES: Final = {
    "data_wait": "data wait",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "other": "other",
}
GPU_PARTS: Final = {
    "compute": "compute",
    "exposed_comm": "exposed communication",
    "exposed_memcpy": "exposed copies",
    "idle": "idle",
}
"""Of a GPU's time, and how people say it."""

_UNJOINED_WORDS: Final = {
    "no_call": "the call was before the window, or its record was lost",
    "not_recorded": "operators were not recorded just then",
    "no_operator": "launched outside any operator",
    "edge": "the window's start cut the operator",
}

UNRECORDED: Final = "unrecorded"
UNRECORDED_WORDS: Final = "not recorded"


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of the mean step."""

    key: str
    label: str
    ns: float
    share: float


@dataclass(frozen=True, slots=True)
class StepTime:
    """Where the mean step's time went. `recorded` False: only data wait and optimizer are known."""

    slices: tuple[Slice, ...]
    step_ns: float
    steps: int
    recorded: bool
    gap_ns: float | None
    """Per step, with no operator on the step's thread; None if not recorded."""
    gc_ns: float


@dataclass(frozen=True, slots=True)
class Price:
    """The price of looking over all ranks: worst slowdown and pause, sums of events and drops."""

    recorded_share: float
    slowdown_recorded: float | None
    slowdown_window: float | None
    pause_ns: int
    events: int
    dropped: Mapping[str, int]

    @property
    def lost(self) -> int:
        """Events lost for any cause."""
        return sum(self.dropped.values())


def step_time(ranks: Iterable[Rank]) -> StepTime | None:
    """Mean over the whole recorded steps; where there are none, over the whole unrecorded ones."""
    whole = [step for rank in ranks for step in rank.steps if step.whole]
    recorded = [step for step in whole if step.recorded]
    steps = recorded or whole
    total_ns = sum(step.dur_ns for step in steps)
    if total_ns <= 0:
        return None
    parts = _recorded_parts(steps) if recorded else _unrecorded_parts(steps)
    gaps = [step.gap_ns for step in recorded if step.gap_ns is not None]
    return StepTime(
        slices=tuple(Slice(k, w, ns / len(steps), ns / total_ns) for k, w, ns in parts),
        step_ns=total_ns / len(steps),
        steps=len(steps),
        recorded=bool(recorded),
        gap_ns=sum(gaps) / len(gaps) if gaps else None,
        gc_ns=sum(step.gc_ns for step in steps) / len(steps),
    )


def _recorded_parts(steps: Sequence[Step]) -> list[tuple[str, str, int]]:
    return [
        (key, words, sum(getattr(step.phases, f"{key}_ns") for step in steps))
        for key, words in PHASES.items()
    ]


def _unrecorded_parts(steps: Sequence[Step]) -> list[tuple[str, str, int]]:
    wait = sum(step.phases.data_wait_ns for step in steps)
    optimizer = sum(step.phases.optimizer_ns for step in steps)
    rest = sum(step.dur_ns for step in steps) - wait - optimizer
    return [
        ("data_wait", PHASES["data_wait"], wait),
        ("optimizer", PHASES["optimizer"], optimizer),
        (UNRECORDED, UNRECORDED_WORDS, rest),
    ]


def gpu_sentence(report: Report) -> str:
    """`GPU (simulated): compute 61%, ..., idle 33%.`; empty below level `device`."""
    total = dict.fromkeys(GPU_PARTS, 0)
    for rank in report.ranks:
        for key, ns in (rank.breakdown or {}).items():
            total[key] += ns
    whole = sum(total.values())
    if not whole:
        return ""
    said = ", ".join(f"{GPU_PARTS[k]} {text.share(ns / whole)}" for k, ns in total.items() if ns)
    return f"{'Simulated GPU' if report.simulated else 'GPU'}: {said}."


def memory_sentences(report: Report) -> list[str]:
    """What the allocator held, by device of each rank, the fullest first; at most four."""
    found = [(rank, memory) for rank in report.ranks for memory in rank.memory]
    found.sort(key=lambda pair: -pair[1].reserved_peak)
    said = []
    for rank, memory in found[:_MEMORIES_SAID]:
        of = f" of rank {rank.rank}" if len(report.ranks) > 1 else ""
        least, most = text.size(memory.allocated_least), text.size(memory.allocated_most)
        ends = " at the ends of steps" if memory.step_ends else ""
        held = most if least == most else f"{least} to {most}"
        said.append(
            f"Memory on {text.clean(memory.device)}{of}: {held} in tensors{ends},"
            f" {text.size(memory.allocated_peak)} at most; {text.size(memory.reserved_peak)}"
            f" reserved at most{_memory_trouble(memory)}."
        )
    return said


def _memory_trouble(memory: Memory) -> str:
    said = []
    if memory.retries:
        said.append(f"{text.plural(memory.retries, 'time')} the whole cache was given back")
    if memory.ooms:
        said.append(f"{text.plural(memory.ooms, 'request')} failed")
    return "".join(f"; {words}" for words in said)


def unjoined_words(report: Report) -> str:
    """Why some of the GPU's work has no operator; empty if all has."""
    said = [
        f"{text.count(count)} ({_UNJOINED_WORDS.get(reason, text.label(reason))})"
        for reason, count in report.unjoined.items()
    ]
    return f"Pieces of GPU work whose operator is not known: {', '.join(said)}." if said else ""


def price(report: Report) -> Price:
    """What the ranks paid, worst first: nobody's cost hides behind a mean."""
    overheads = [rank.overhead for rank in report.ranks]
    found = sum(rank.steps_found for rank in report.ranks)
    if found:
        part = sum(rank.steps_recorded for rank in report.ranks) / found
    else:
        part = max((o.recorded_share for o in overheads), default=0.0)
    dropped: dict[str, int] = {}
    for overhead in overheads:
        for cause, lost in overhead.dropped.items():
            dropped[cause] = dropped.get(cause, 0) + lost
    return Price(
        recorded_share=part,
        slowdown_recorded=_worst(o.slowdown_recorded for o in overheads),
        slowdown_window=_worst(o.slowdown_window for o in overheads),
        pause_ns=max((o.pause_ns for o in overheads), default=0),
        events=sum(o.events for o in overheads),
        dropped=dropped,
    )


def _worst(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def price_lines(cost: Price) -> list[tuple[str, str]]:
    """Label and words for each part of the price."""
    return [
        ("Pause at attach", f"{text.duration(cost.pause_ns)}, one thread"),
        ("Recorded steps", _slower(cost.slowdown_recorded)),
        ("The whole window", _slower(cost.slowdown_window)),
        ("Events recorded", text.count(cost.events)),
        ("Events dropped", _lost_words(cost)),
    ]


def price_sentence(cost: Price) -> str:
    """The same in one sentence."""
    return (
        f"one thread paused for {text.duration(cost.pause_ns)} at attach; "
        f"recorded steps {_slower(cost.slowdown_recorded)}; "
        f"the whole window {_slower(cost.slowdown_window)}; "
        f"{text.plural(cost.events, 'event')}, {_lost_words(cost)} dropped."
    )


def _slower(ratio: float | None) -> str:
    if ratio is None:
        return "not comparable (needs recorded and unrecorded steps)"
    if abs(ratio) < 0.001:
        return "not measurably slower (under 0.1%)"
    return f"{text.share(abs(ratio))} {'slower' if ratio > 0 else 'faster, so within the noise'}"


def _lost_words(cost: Price) -> str:
    lost = text.count(cost.lost)
    if not cost.lost:
        return lost
    causes = sorted(cost.dropped.items(), key=lambda item: -item[1])
    return f"{lost} ({', '.join(f'{text.label(c)} {text.count(n)}' for c, n in causes)})"


def headline(report: Report) -> str:
    """The one sentence on top. Says what was found, or that nothing could be; never `healthy`."""
    losses = [f for f in report.findings if f.severity != "info"]
    if losses:
        return _sentence(losses[0].claim)
    if not report.ranks or not any(rank.overhead.events for rank in report.ranks):
        return "Nothing was captured: the target ran no PyTorch operator in the window."
    spent = step_time(report.ranks)
    if spent is None:
        return _sentence(report.findings[0].claim) if report.findings else _no_steps(report)
    largest = max(spent.slices, key=lambda part: part.ns)
    known = [part for part in spent.slices if part.key not in (UNRECORDED, "other")]
    if largest.key == UNRECORDED:
        largest = max(known, key=lambda part: part.ns)
    said = (
        f"No loss stands out in {text.plural(spent.steps, 'step')}; "
        f"{largest.label} takes {text.share(largest.share)} of the step"
    )
    if report.abstained:
        said += f", and {text.plural(len(report.abstained), 'question')} could not be answered"
    return said + "."


def abstentions(report: Report) -> list[tuple[str, list[str]]]:
    """Each reason for not answering, and the questions that it leaves open."""
    by_reason: dict[str, list[str]] = {}
    for gap in report.abstained:
        by_reason.setdefault(gap.reason, []).append(text.label(gap.rule))
    return list(by_reason.items())


def _no_steps(report: Report) -> str:
    events = sum(rank.overhead.events for rank in report.ranks)
    return f"No step was found in {text.plural(events, 'event')}; the operators are listed below."


def _sentence(claim: str) -> str:
    claim = text.clean(claim).strip()
    return claim if claim.endswith((".", "!", "?")) else claim + "."


def shown_findings(report: Report) -> tuple[tuple[Finding, ...], int]:
    """The findings that are shown, and how many more there are."""
    return report.findings[:FINDINGS_SHOWN], max(0, len(report.findings) - FINDINGS_SHOWN)


def level_sentence(report: Report) -> str:
    """The level and what it can see, e.g. `framework level: CPU-side times; ...`."""
    words = LEVEL_WORDS.get(report.level)
    name = f"{text.clean(report.level)} level"
    return f"{name}: {words}" if words else name


def mode_words(report: Report) -> str:
    """The mode as people say it."""
    return MODE_WORDS.get(report.mode, text.clean(report.mode).replace("_", " "))


def steps_found(report: Report) -> int:
    """Steps found, all ranks."""
    return sum(rank.steps_found for rank in report.ranks)


def steps_recorded(report: Report) -> int:
    """Steps with every operator recorded, all ranks."""
    return sum(rank.steps_recorded for rank in report.ranks)


def whole_steps(report: Report) -> int:
    """Whole steps, all ranks: what the GPUs' time is summed over."""
    return sum(step.whole for rank in report.ranks for step in rank.steps)


def whole_recorded(report: Report) -> int:
    """Whole recorded steps, all ranks: what operators and modules are summed over."""
    return sum(step.whole and step.recorded for rank in report.ranks for step in rank.steps)


def median_step_ns(report: Report) -> float | None:
    """Median over the ranks' median steps; None where no rank has steps."""
    medians = [r.median_step_ns for r in report.ranks if r.median_step_ns is not None]
    return median(medians) if medians else None


def window_ns(report: Report) -> int:
    """The longest window of the ranks."""
    return max((rank.window_ns for rank in report.ranks), default=0)


def captured_words(report: Report) -> str:
    """`40 steps found, 15% recorded (bursts of whole steps) in 10.0 s`."""
    part = text.share(price(report).recorded_share)
    window = text.duration(window_ns(report))
    if not steps_found(report):
        return f"no step found, {part} of {window} recorded ({mode_words(report)})"
    return f"{_steps_words(report)} found, {part} recorded ({mode_words(report)}) in {window}"


def _steps_words(report: Report) -> str:
    """`40 steps`, or for several ranks `38 to 40 steps on each of 2 ranks`."""
    counts = sorted(rank.steps_found for rank in report.ranks)
    if len(counts) == 1:
        return text.plural(counts[0], "step")
    spread = "" if counts[0] == counts[-1] else f"{text.count(counts[0])} to "
    return f"{spread}{text.plural(counts[-1], 'step')} on each of {len(counts)} ranks"


def pids_words(report: Report, *, most: int = 4) -> str:
    """`pid 4242`, or the first few of many."""
    pids = [str(rank.pid) for rank in report.ranks]
    if not pids:
        return "no process"
    more = f" and {len(pids) - most} more" if len(pids) > most else ""
    return f"pid{'s' if len(pids) > 1 else ''} {', '.join(pids[:most])}{more}"


def command_words(target: Mapping[str, Any]) -> str | None:
    """The target's command line as one would type it; None if not known."""
    for key in ("command", "argv", "cmdline"):
        command = target.get(key)
        if isinstance(command, list | tuple) and command:
            return text.clean(shlex.join(str(part) for part in command))
        if command:
            return text.clean(command)
    return None


def facts(target: Mapping[str, Any], *, prefix: str = "") -> list[tuple[str, str]]:
    """The target's settings as label and value; nested dicts become `dataloader: num workers`."""
    rows: list[tuple[str, str]] = []
    for key, data in target.items():
        name = f"{prefix}{text.label(str(key))}"
        if isinstance(data, Mapping):
            rows += facts(data, prefix=f"{name}: ")
        elif isinstance(data, list | tuple) and any(isinstance(item, Mapping) for item in data):
            for at, item in enumerate(data):
                inner = item if isinstance(item, Mapping) else {"value": item}
                rows += facts(inner, prefix=f"{name} {at}: ")
        elif data is not None and data != "" and data != [] and data != ():
            rows.append((name, text.value(str(key), data)))
    return rows
