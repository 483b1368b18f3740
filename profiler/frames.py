"""Python stacks: from interned code objects and frames to functions, files, lines and modules.

The agent keeps a stack once and an event its number, so everything here is done once per distinct
stack or code object, never per event.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.agent_memory import AgentMemory, Records
from gputap.profiler.errors import ProfilerError

if TYPE_CHECKING:
    import pyarrow as pa

Ints = npt.NDArray[np.int64]

ModuleNames = dict[int, tuple[str, str]]
"""Qualified name and class of modules, by address."""

Resolver = Callable[[Sequence[int]], Mapping[int, tuple[str, str]]]
"""Asks the target for the names of modules at some addresses; unknown ones are absent."""


# -------------------------------------------------------------------------------- line tables


def line_ranges(version: tuple[int, int], table: bytes, first_line: int) -> tuple[Ints, Ints]:
    """Where each run of one line ends (byte offset, exclusive) and its line; 0 = no line.

    `table` is co_lnotab up to CPython 3.9 and co_linetable from 3.10 on. A damaged table gives what
    could be read of it.
    """
    if version >= (3, 11):
        runs = _runs_3_11(table, first_line)
    elif version >= (3, 10):
        runs = _runs_3_10(table, first_line)
    else:
        runs = _runs_3_8(table, first_line)
    pairs = np.array(list(runs), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def line_of(version: tuple[int, int], table: bytes, first_line: int, lasti: int) -> int:
    """The line of the instruction at byte offset `lasti`; 0 if it has none."""
    ends, lines = line_ranges(version, table, first_line)
    return int(_lines_at(ends, lines, np.array([lasti], np.int64))[0])


def _lines_at(ends: Ints, lines: Ints, lasti: Ints) -> Ints:
    run = np.searchsorted(ends, lasti, side="right")
    inside = (run < len(lines)) & (lasti >= 0)
    out = np.zeros(len(lasti), np.int64)
    out[inside] = lines[run[inside]]
    return out


def _runs_3_8(table: bytes, line: int) -> Iterator[tuple[int, int]]:
    """Pairs of a byte step and a signed line step that comes after it."""
    at = 0
    for step, change in zip(table[::2], table[1::2], strict=False):
        at += step
        if step:
            yield at, line
        line += change - 256 if change >= 128 else change
    yield _NO_END, line


def _runs_3_10(table: bytes, line: int) -> Iterator[tuple[int, int]]:
    """Pairs of a byte step and a signed line step that comes before it; -128 = no line."""
    at = 0
    for step, change in zip(table[::2], table[1::2], strict=False):
        at += step
        if change != 128:
            line += change - 256 if change >= 128 else change
        if step:
            yield at, 0 if change == 128 else line


def _runs_3_11(table: bytes, line: int) -> Iterator[tuple[int, int]]:
    """Entries of a first byte (form and length in code units) and column data that we skip."""
    at, i = 0, 0
    while i < len(table):
        form, at = table[i] >> 3 & 15, at + 2 * ((table[i] & 7) + 1)
        i += 1
        if form in (_LONG_FORM, _NO_COLUMNS):
            change, i = _varint(table, i)
            line += -(change >> 1) if change & 1 else change >> 1
        elif _ONE_LINE_FORM <= form < _NO_COLUMNS:
            line += form - _ONE_LINE_FORM
        yield at, 0 if form == _NO_LINE else line
        while i < len(table) and not table[i] & 0x80:
            i += 1


_NO_END: Final = 1 << 40
_ONE_LINE_FORM, _NO_COLUMNS, _LONG_FORM, _NO_LINE = 10, 13, 14, 15


def _varint(table: bytes, i: int) -> tuple[int, int]:
    """A number in groups of six bits, lowest first; bit 6 says that another group follows."""
    value = shift = 0
    while i < len(table):
        value |= (table[i] & 63) << shift
        i, shift = i + 1, shift + 6
        if not table[i - 1] & 64:
            break
    return value, i


# ----------------------------------------------------------------------------------- modules


@dataclass(frozen=True, slots=True)
class Module:
    """One nn.Module of the target."""

    name: str
    """Qualified name within its root; '' is the root."""
    module_class: str
    root_class: str = ""
    root: int = 0
    """Address of the root: tells roots of one class apart."""


def parse_modules(answer: str) -> dict[int, Module]:
    """Modules by address from the answer of the `modules` snippet. Nonsense is left out."""
    try:
        found = json.loads(answer).get("modules", {})
    except (ValueError, AttributeError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {
        int(address): Module(row[0], row[1], row[2], row[3])
        for address, row in items
        if address.isdigit() and _is_module_row(row)
    }


def _is_module_row(row: Any) -> bool:
    kinds = (str, str, str, int)
    return (
        isinstance(row, list)
        and len(row) == len(kinds)
        and all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True))
    )


def module_names(modules: Mapping[int, Module]) -> ModuleNames:
    """A name and a class per module; different modules of different roots have different names.

    The names of a job's one model stay as the user knows them. What stands beside it (a loss, a
    metric) is prefixed by its root's class, and where there are several models, each of them is.
    """
    sizes = Counter((m.root, m.root_class) for m in modules.values())
    models = [root for root, size in sizes.items() if size > 1]
    main = models[0] if len(models) == 1 else None
    if not models and len(sizes) == 1:
        main = next(iter(sizes))
    seen: Counter[str] = Counter()
    prefix: dict[tuple[int, str], str] = {}
    for root in sorted(sizes):
        name = root[1]
        prefix[root] = "" if root == main else f"{name}#{seen[name]}" if seen[name] else name
        seen[name] += root != main
    return {
        address: (".".join(filter(None, (prefix[m.root, m.root_class], m.name))), m.module_class)
        for address, m in modules.items()
    }


# ------------------------------------------------------------------------------------ stacks


@dataclass(frozen=True, slots=True)
class Interned:
    """What the agent keeps once: strings by id, code objects and stacks by id - 1."""

    strings: list[str]
    """Index = id; 0 is the empty string."""
    codes: Records
    line_tables: list[bytes]
    frames: Records
    """The frames of all stacks, one stack after another, innermost first."""
    frame_counts: Ints

    def string(self, string_id: int) -> str:
        """A string by id; '' for an unknown one."""
        return self.strings[string_id] if string_id < len(self.strings) else ""


def read_interned(memory: AgentMemory, *, final: bool = True) -> Interned:
    """Everything interned up to now."""
    codes = memory.codes(final=final)
    strings = ["", *memory.strings(final=final)]
    frames, counts = memory.frames(memory.stacks(final=final))
    frames, counts = _without_internal_frames(strings, codes, frames, counts)
    return Interned(
        strings=strings,
        codes=codes,
        line_tables=[
            memory.arena(offset, length)
            for offset, length in zip(
                codes["linetable_offset"].tolist(), codes["linetable_length"].tolist(), strict=True
            )
        ],
        frames=frames,
        frame_counts=counts,
    )


def _without_internal_frames(
    strings: Sequence[str], codes: Records, frames: Records, counts: Ints
) -> tuple[Records, Ints]:
    """Without the frame that CPython 3.13 and later put below an inlined `__init__`.

    Its code object has this for its file too, and CPython hides it from its own tracebacks.
    """
    names = [i for i, text in enumerate(strings) if text == "__init__"]
    if not names:
        return frames, counts
    same = np.isin(codes["name_id"], names) & np.isin(codes["filename_id"], names)
    kept = ~np.isin(frames["code_id"], np.flatnonzero(same) + 1)
    owners = np.repeat(np.arange(len(counts)), counts)
    return frames[kept], np.bincount(owners[kept], minlength=len(counts)).astype(np.int64)


def module_pointers(interned: Interned) -> list[int]:
    """Addresses of the modules that were called, for the `modules` snippet."""
    return [int(p) for p in np.unique(interned.frames["module_ptr"]) if p]


def stack_ids(interned: Interned) -> Ints:
    """The stack of each frame."""
    return np.repeat(np.arange(1, len(interned.frame_counts) + 1), interned.frame_counts)


def innermost(frames: Records, counts: Ints, known: Mapping[int, object]) -> list[int]:
    """Address of the innermost known module of each stack; 0 if there is none."""
    out = np.zeros(len(counts), np.uint64)
    pointers = frames["module_ptr"]
    hits = np.flatnonzero(np.isin(pointers, np.array(sorted(known), np.uint64)))
    stacks, first = np.unique(np.repeat(np.arange(len(counts)), counts)[hits], return_index=True)
    out[stacks] = pointers[hits[first]]
    return [int(pointer) for pointer in out]


def frame_lines(interned: Interned, version: tuple[int, int]) -> Ints:
    """The line of each frame; where no line is known, the first one of its function."""
    code_ids, lasti = interned.frames["code_id"], interned.frames["lasti"].astype(np.int64)
    out = np.zeros(len(code_ids), np.int64)
    for code_id in np.unique(code_ids):
        if not 0 < code_id <= len(interned.codes):
            continue
        here = code_ids == code_id
        first_line = int(interned.codes["firstlineno"][code_id - 1])
        ranges = line_ranges(version, interned.line_tables[code_id - 1], first_line)
        lines = _lines_at(*ranges, lasti[here])
        out[here] = np.where(lines > 0, lines, max(first_line, 0))
    return out


def stack_table(
    interned: Interned, version: tuple[int, int], modules: Mapping[int, tuple[str, str]]
) -> pa.Table:
    """The rows of `schema.STACKS`: one per frame, innermost first."""
    import pyarrow as pa

    starts = np.cumsum(interned.frame_counts) - interned.frame_counts
    code_ids = interned.frames["code_id"].astype(np.int64)
    code = np.where((code_ids > 0) & (code_ids <= len(interned.codes)), code_ids - 1, -1)
    named = [modules.get(p, (None, None)) for p in interned.frames["module_ptr"].tolist()]
    columns = {
        "stack_id": stack_ids(interned),
        "frame": np.arange(len(code)) - np.repeat(starts, interned.frame_counts),
        "function": _by_code(interned, code, "name_id"),
        "file": _by_code(interned, code, "filename_id"),
        "line": frame_lines(interned, version),
        "module": pa.array([name for name, _ in named], pa.string()),
        "module_class": pa.array([kind for _, kind in named], pa.string()),
    }
    fields = schema.arrow_schema(schema.STACKS)
    return pa.table(
        [pa.array(columns[field.name]).cast(field.type) for field in fields], schema=fields
    )


def _by_code(interned: Interned, code: Ints, field: str) -> pa.Array:
    """A string of each frame's code object, as a dictionary column."""
    import pyarrow as pa

    texts = [interned.string(i) for i in interned.codes[field].tolist()]
    distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    index = np.array([distinct[text] for text in texts] or [0], np.int32)[code]
    return pa.DictionaryArray.from_arrays(
        pa.array(index, pa.int32(), mask=code < 0), pa.array(list(distinct), pa.string())
    )


class StackNames:
    """What the stack ids of one target mean, while it is captured and in the end."""

    def __init__(self, memory: AgentMemory, modules: Resolver) -> None:
        """`modules` is asked once for each address; asking may fail, which leaves it unnamed."""
        self._memory = memory
        self._modules = modules
        self._names: ModuleNames = {}
        self._asked: set[int] = set()
        self._innermost: list[int] = [0]

    def modules_of(self, ids: Sequence[int]) -> list[tuple[str | None, str | None]]:
        """Name and class of the innermost module of each stack id, or Nones."""
        known = self._innermost
        if ids and max(ids) >= len(known):
            known.extend(self._read(final=False))
        if ids and max(ids) >= len(known):
            # An unfinished stack holds up those behind it; look past it, for this time only.
            known = known + self._read(final=True)
        none = (None, None)
        return [self._names.get(known[i], none) if i < len(known) else none for i in ids]

    def table(self) -> pa.Table:
        """The rows of `schema.STACKS` of everything up to now."""
        interned = read_interned(self._memory)
        self._asked = set(self._names)  # what failed before is asked once more
        self._ask(interned.frames)
        return stack_table(interned, self._version(), self._names)

    def _read(self, *, final: bool) -> list[int]:
        """The innermost modules of the stacks that have come since."""
        stacks = self._memory.stacks(len(self._innermost), final=final)
        frames, counts = self._memory.frames(stacks)
        self._ask(frames)
        return innermost(frames, counts, self._names)

    def _ask(self, frames: Records) -> None:
        new = set(np.unique(frames["module_ptr"]).tolist()) - self._asked - {0}
        if not new:
            return
        self._asked |= new
        try:
            self._names.update(self._modules(sorted(new)))
        except ProfilerError:  # the GIL was not to be had: the capture goes on without names
            return

    def _version(self) -> tuple[int, int]:
        """The target's CPython, as the agent was told."""
        raw = self._memory.array("python_layout").view(schema.dtype(schema.PYTHON_LAYOUT))
        number = int(raw["version"][0])
        return number >> 8, number & 255
