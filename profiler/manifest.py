"""`manifest.json`: what a capture is, who was tapped, at which level, and what was lost.

The dataclasses are the file: field names are its keys. Unknown keys are ignored, so an additive
change needs no new version; a wrong type, or a version newer than ours, is refused with the place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from gputap.profiler.errors import CaptureUnreadable
from gputap.profiler.schema import CAPTURE_VERSION

MANIFEST_NAME: Final = "manifest.json"

LEVELS: Final = ("host", "framework", "device")
"""Levels of truth, lowest first."""

State = Literal["open", "closed", "truncated"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ClockManifest:
    """How the times of one rank became unix time, and how wrong they can be."""

    offset_ns: int
    """Unix time minus CLOCK_MONOTONIC, one constant for the session."""
    error_ns: int
    """Bound on ticks to CLOCK_MONOTONIC: half the widest bracket plus the residual."""
    samples: int
    kind: str = "cpu_counter"
    """Lower-case name of a `ClockKind`."""
    drift_ns: int = 0
    """How far unix time moved against CLOCK_MONOTONIC during the session (NTP)."""


@dataclass(frozen=True, slots=True)
class DeviceManifest:
    """Where the times of the GPU come from."""

    cuda: str
    """CUDA version of the CUPTI in the target."""
    cupti: int
    """What cuptiGetVersion said."""
    devices: dict[str, str] = field(default_factory=dict)
    """Names by CUDA's number."""
    rows: int = 0
    calls: int = 0
    clock_error_ns: int = 0
    """Bound on the difference between the times of the GPU and those of the CPU."""
    clock_steps: int = 0
    """How often the system's time was set during the window."""
    yields: int = 0
    """How often CUPTI was left to the target's own profiler."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Records that made no sense, by cause."""


@dataclass(frozen=True, slots=True)
class MemoryManifest:
    """How torch's allocator was looked at."""

    readings: int
    """Times that it told of a device."""
    cost_ns: int
    """What they took of the target's time with the GIL, all together."""
    missed: int = 0
    """Readings that came faster than they were taken."""
    nonsense: int = 0
    """Answers that were none."""
    failure: str = ""
    """What Python raised; the allocator was not asked again."""


@dataclass(frozen=True, slots=True)
class RankManifest:
    """One tapped process. None means not known, never zero."""

    rank: int
    host: str
    pid: int = 0
    """As gputap sees it; 0 if unknown."""
    world_size: int | None = None
    local_rank: int | None = None
    level: str = "framework"
    """One of `LEVELS`."""
    level_reasons: tuple[str, ...] = ()
    """Why the level is not higher."""
    target: dict[str, Any] = field(default_factory=dict)
    """command, python, torch, device and so on."""
    clock: ClockManifest | None = None
    mode: str = "bursts"
    """Lower-case name of a `CaptureMode`."""
    window_start_ns: int | None = None
    """Unix time."""
    window_end_ns: int | None = None
    recorded_ns: int | None = None
    """Time during which every operator was recorded."""
    scopes_seen_ns: int | None = None
    """Time during which user scopes (steps, loader, optimizer) were recorded."""
    events: int = 0
    armed_events: int = 0
    """Events seen while armed but not recorded."""
    boundaries: int = 0
    """Step boundaries that the agent saw."""
    bursts: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Lost events by lower-case `DropCause`."""
    cut: int = 0
    """Events that were still running when the window closed: not recorded, and not lost either."""
    device: DeviceManifest | None = None
    """None below level `device`."""
    memory: MemoryManifest | None = None
    """None where the process uses no device."""
    stop_reason: str = "none"
    """Lower-case name of a `StopReason`."""
    pause_ns: int | None = None
    """How long one thread of the target was stopped at attach."""

    @property
    def window_ns(self) -> int:
        """Length of the window; 0 if its edges are not known."""
        if self.window_start_ns is None or self.window_end_ns is None:
            return 0
        return self.window_end_ns - self.window_start_ns


@dataclass(frozen=True, slots=True)
class Part:
    """One closed Parquet file. Listed when the manifest was last written."""

    table: str
    path: str
    """Relative to the capture."""
    rows: int
    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole file. `level` is the lowest of the ranks: what can be said of all of them."""

    job: str
    created_ns: int
    """Unix time."""
    gputap: str
    """Version of gputap that wrote it."""
    state: State = "open"
    reason: str = ""
    """Why it was truncated."""
    source: str = "attach"
    """attach, watch, import, demo."""
    simulated: bool = False
    """True if the device was a simulated one."""
    ranks: tuple[RankManifest, ...] = ()
    parts: tuple[Part, ...] = ()
    version: int = CAPTURE_VERSION

    @property
    def level(self) -> str:
        """Lowest level of the ranks; `host` if there are none."""
        return min((r.level for r in self.ranks), key=_level_order, default="host")

    @property
    def level_reasons(self) -> tuple[str, ...]:
        """Why the level is not higher, each reason once."""
        return tuple(dict.fromkeys(reason for r in self.ranks for reason in r.level_reasons))

    def files(self, table: str) -> int:
        """Number of listed parts of `table`."""
        return sum(part.table == table for part in self.parts)

    def rows(self, table: str) -> int:
        """Rows in the listed parts of `table`."""
        return sum(part.rows for part in self.parts if part.table == table)

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read the file's text. Raises CaptureUnreadable with what is wrong and where."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise CaptureUnreadable(f"{MANIFEST_NAME} is damaged: it is not JSON ({exc}).") from exc
        if not isinstance(data, dict):
            raise CaptureUnreadable(f"{MANIFEST_NAME} is damaged: it holds no JSON object.")
        _check_version(data.get("version"))
        return _decode(cls, data, "manifest")


def _level_order(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else 0


def _check_version(version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CaptureUnreadable(
            f"{MANIFEST_NAME} is not a gputap capture's: `version` is {version!r}."
        )
    if version > CAPTURE_VERSION:
        raise CaptureUnreadable(
            f"The capture has version {version}; this gputap reads up to {CAPTURE_VERSION}.",
            hint="Read it with the newer gputap that wrote it, or upgrade this one.",
        )


def _decode(cls: type[_T], data: Mapping[str, Any], where: str) -> _T:
    hints = get_type_hints(cls)
    values = {}
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name in data:
            values[f.name] = _value(hints[f.name], data[f.name], f"{where}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise CaptureUnreadable(f"{MANIFEST_NAME} is damaged: {where}.{f.name} is missing.")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`: scalars, `X | None`, Literal, tuple, dict or dataclass."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(value, dict):
        return _decode(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: _value(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is UnionType:
        return None if value is None else _value(_not_none(args), value, where)
    if origin is Literal and value in args:
        return value
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise CaptureUnreadable(
        f"{MANIFEST_NAME} is damaged: {where} is {_shown(value)}, not {_type(hint)}."
    )


def _not_none(args: tuple[Any, ...]) -> Any:
    return next(a for a in args if a is not NoneType)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    names = {"int": "an integer", "str": "a string", "bool": "true or false"}
    if is_dataclass(hint):
        return "an object"
    origin = get_origin(hint)
    if origin is tuple:
        return "a list"
    return "an object" if origin is dict else names.get(getattr(hint, "__name__", ""), str(hint))
