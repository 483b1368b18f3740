"""What analysis answers: plain frozen data, rendered by dashboards and printed as `--json`.

All times are integer nanoseconds; starts are unix time. A figure that could not be measured is
None, never 0, and the reason is in `Report.abstained`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

REPORT_VERSION: Final = 1
"""Version of the report's JSON form, key `schema`."""

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Phases:
    """Where a step's time went on its thread. The five add up to the step to the nanosecond."""

    data_wait_ns: int
    forward_ns: int
    backward_ns: int
    optimizer_ns: int
    other_ns: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `gap_ns`, part of any phase, is time with no operator on the step's thread."""

    step: int
    start_ns: int
    dur_ns: int
    recorded: bool
    whole: bool
    boundary: str
    micro_steps: int
    phases: Phases
    gap_ns: int | None
    gc_ns: int
    collective_ns: int
    events: int
    gpu_busy_ns: int | None = None
    """With work on some GPU; None below level `device`."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What torch's allocator held of one GPU. Bytes; counts are of the window."""

    device: str
    """As torch names it: `cuda:0`."""
    step_ends: int
    """Looks at the end of a step. The next three figures are of these; of all looks where 0."""
    allocated: int
    """Of live tensors, at the last of them."""
    allocated_least: int
    allocated_most: int
    allocated_peak: int
    """The most at any time since the process began, or set it back."""
    reserved: int
    """What the allocator has from the driver, at the last look."""
    reserved_peak: int
    inactive_split: int
    """Free, but in segments that are partly used: it can be given to nobody else."""
    allocations: int
    segments: int
    """Blocks taken from the driver (cudaMalloc): none in a loop that has settled."""
    retries: int
    """Times that the driver had no more: the whole cache was given back, and it was asked again."""
    ooms: int


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator or autograd node, over all recorded whole steps and ranks."""

    name: str
    kind: str
    count: int
    total_ns: int
    self_ns: int
    mean_ns: int
    share: float
    """Self time over the recorded steps' time."""
    top_module: str | None
    top_source: str | None
    """`file:line function` with most of its self time."""
    device_ns: int | None = None
    """GPU time of what it launched itself; None below level `device`."""


@dataclass(frozen=True, slots=True)
class Module:
    """One nn.Module, own operators only (`self_*`) and with everything below it (`total_ns`)."""

    name: str
    module_class: str
    count: int
    """Operators that ran in it or below it, forward and backward."""
    forward_ns: int
    backward_ns: int
    self_forward_ns: int
    self_backward_ns: int
    total_ns: int
    share: float
    device_ns: int | None = None
    """GPU time of what it and everything below it launched; None below level `device`."""
    self_device_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Collective:
    """Collectives of one operation, backend, group and size."""

    op: str
    backend: str | None
    group_name: str | None
    dtype: str | None
    count: int
    bytes: int | None
    total_ns: int
    mean_ns: int
    max_ns: int
    timing_source: str | None = None
    """host_call, host_work or device; `mixed` where they differ."""
    transfer_ns: int | None = None
    """Mean from the last rank's coming to the end: the time without waiting for each other. None
    unless several ranks of one host were captured and matched."""
    busbw: float | None = None
    """Bus bandwidth of the transfer by nccl-tests' formulas, bytes per second; of device times
    only."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel or a sort of copy, over all whole steps and ranks."""

    name: str
    """Shortened for people."""
    full_name: str
    kind: str
    """kernel, memcpy, memset."""
    category: str
    """gemm, attention, elementwise, communication, memory, ..."""
    count: int
    total_ns: int
    mean_ns: int
    max_ns: int
    share: float
    """Of the GPUs' time with some work."""
    top_operator: str | None
    """That launched most of it; None where operators were not recorded."""
    top_module: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim with numbers, what proves it, what could be gained at most, and what to do."""

    rule: str
    severity: Severity
    claim: str
    evidence: tuple[dict[str, Any], ...]
    ceiling_ns: int | None
    """Upper bound of the gain per step. Ceilings overlap: never add them up."""
    advice: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Abstained:
    """A question that this capture cannot answer, and why. Never the same as healthy."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Overhead:
    """The price of looking, measured in this very run."""

    recorded_share: float
    """Share of the steps (of the window, where there are no steps) with every operator recorded."""
    slowdown_recorded: float | None
    """Median recorded step over median unrecorded step, minus 1. None without both kinds."""
    slowdown_window: float | None
    """The same, weighed by the share of steps recorded: what the job paid."""
    pause_ns: int
    """How long one thread of the target was stopped at attach."""
    events: int
    dropped: dict[str, int]
    """Lost events by cause, only causes above zero."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of the job."""

    rank: int
    world_size: int | None
    host: str
    pid: int
    window_ns: int
    breakdown: dict[str, int] | None
    """compute, exposed_comm, exposed_memcpy, idle of its GPUs over its whole steps (the window,
    where there are none), in ns; None below level `device`."""
    phases: Phases | None
    """Sum over whole recorded steps; None if there are none."""
    gap_ns: int | None
    gc_ns: int
    steps_found: int
    steps_recorded: int
    median_step_ns: int | None
    steps: tuple[Step, ...]
    overhead: Overhead
    mode: str = ""
    """Lower-case name of a `CaptureMode`."""
    devices: tuple[str, ...] = ()
    """The GPUs it used."""
    memory: tuple[Memory, ...] = ()
    """By GPU, of those that torch has memory of."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the verdict, the page and `--json` need."""

    level: str
    level_reasons: tuple[str, ...]
    mode: str
    job: str
    target: dict[str, Any]
    """python, torch, command, device and so on, from the manifest."""
    ranks: tuple[Rank, ...]
    operators: tuple[Operator, ...]
    modules: tuple[Module, ...]
    collectives: tuple[Collective, ...]
    findings: tuple[Finding, ...]
    """Most important first."""
    abstained: tuple[Abstained, ...]
    kernels: tuple[Kernel, ...] = ()
    """Most time first."""
    unjoined: dict[str, int] = field(default_factory=dict)
    """Pieces of GPU work whose operator is not known, by reason."""
    simulated: bool = False
    schema: int = field(default=REPORT_VERSION)


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON data; documented in docs/report.md."""
    return asdict(report)
