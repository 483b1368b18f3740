"""The truth log of the simulated stack: every operation of the device, as it was."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the log. Times as in CUPTI's records."""

    kind: str
    device: int
    context: int
    stream: int
    start_ns: int
    end_ns: int
    bytes: int
    copy_kind: int
    source_kind: int
    destination_kind: int
    correlation_id: int
    graph_id: int
    graph_node_id: int
    tid: int
    name: str


_COLUMNS = [field.name for field in fields(Operation)]


def read(path: Path) -> list[Operation]:
    """All operations, in the order in which they got their times."""
    lines = _whole_lines(path).decode().splitlines()
    if not lines or lines[0].split(",") != _COLUMNS:
        raise ValueError(f"{path} is no truth log")
    return [_parse(line) for line in lines[1:]]


def read_last(path: Path) -> Operation | None:
    """The operation that got its times last; None if there was none yet."""
    head, _, last = _whole_lines(path)[:-1].rpartition(b"\n")
    return _parse(last.decode()) if head else None


def _whole_lines(path: Path) -> bytes:
    """The log of a process that runs, or was killed, ends with zeros, and half a line may be in
    front of them or among them."""
    text = path.read_bytes().partition(b"\0")[0]
    return text[: text.rfind(b"\n") + 1]


def _parse(line: str) -> Operation:
    kind, *numbers, name = line.split(",", len(_COLUMNS) - 1)
    return Operation(kind, *(int(number) for number in numbers), name=name)
