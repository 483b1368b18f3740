"""What exporters read of a capture: columns as NumPy arrays, strings as codes into a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from gputap.profiler.capture import MOST_EVENTS

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from gputap.profiler.manifest import Manifest, RankManifest
    from gputap.profiler.store import Capture

Ints = npt.NDArray[np.int64]

NO_CODE: Final = -1
"""Code of a null string."""

NULL: Final = int(np.iinfo(np.int64).min)
"""A null in an integer column."""


class CaptureSource(Protocol):
    """The part of `gputap.profiler.store.Capture` that exporters use."""

    @property
    def path(self) -> Path:
        """Directory of the capture."""

    @property
    def manifest(self) -> Manifest:
        """Who was tapped, when, how."""

    @property
    def ranks(self) -> tuple[RankManifest, ...]:
        """The ranks, ascending."""

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        rank: int | None = None,
        *,
        last_rows: int | None = None,
    ) -> pa.Table:
        """A table of the schema, of one rank or of all; or only the newest rows."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string column: a code per row, `NO_CODE` for null, and the strings."""

    codes: Ints
    words: tuple[str, ...]

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Text:
        """Some rows."""
        return Text(self.codes[rows], self.words)

    def word(self, code: int) -> str | None:
        """The string of a code; None for null."""
        return None if code < 0 else self.words[code]

    def lookup(self, table: npt.NDArray[Any], default: Any) -> npt.NDArray[Any]:
        """`table[code]` for each row, `default` for null. `table` has an entry for each word."""
        padded = np.append(table, np.array([default], table.dtype))
        out: npt.NDArray[Any] = padded[self.codes]  # NO_CODE is -1: the last entry
        return out


@dataclass(frozen=True, slots=True)
class Columns:
    """A table as arrays of one length."""

    ints: dict[str, Ints]
    texts: dict[str, Text]
    rows: int

    def __len__(self) -> int:
        """Number of rows."""
        return self.rows

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Columns:
        """Some rows."""
        return Columns(
            {name: values[rows] for name, values in self.ints.items()},
            {name: text.take(rows) for name, text in self.texts.items()},
            len(rows),
        )

    @property
    def start_ns(self) -> Ints:
        """Column `start_ns`."""
        return self.ints["start_ns"]

    @property
    def end_ns(self) -> Ints:
        """Columns `start_ns` + `duration_ns`."""
        return self.ints["start_ns"] + self.ints["duration_ns"]


def read(capture: CaptureSource, table: str, columns: Sequence[str], rank: int) -> Columns:
    """Columns of one rank's table, ordered by start; of its events the newest `MOST_EVENTS`."""
    most = MOST_EVENTS if table == "events" else None
    data = capture.table(table, columns=list(columns), rank=rank, last_rows=most)
    ints, texts = {}, {}
    for name in columns:
        column = data.column(name).combine_chunks()
        if _is_dictionary(column):
            texts[name] = _text(column)
        else:
            ints[name] = _ints(column)
    order = np.argsort(ints["start_ns"], kind="stable")
    return Columns(ints, texts, data.num_rows).take(order)


def _is_dictionary(column: pa.Array) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(column.type))


def _text(column: Any) -> Text:
    codes = column.indices.fill_null(NO_CODE).to_numpy(zero_copy_only=False).astype(np.int64)
    words = column.dictionary.to_pylist()
    if None not in words and len(set(words)) == len(words):
        return Text(codes, tuple(words))
    # Other writers may repeat a word, or use null as a word.
    known = {word: i for i, word in enumerate(dict.fromkeys(w for w in words if w is not None))}
    renumber = np.array([known.get(w, NO_CODE) for w in words] + [NO_CODE], np.int64)
    return Text(renumber[codes], tuple(known))


def _ints(column: Any) -> Ints:
    import pyarrow as pa

    filled = column.cast(pa.int64()).fill_null(NULL)
    out: Ints = filled.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return out


class WithSteps:
    """A capture whose steps and collectives are worked out where gputap ended before it did."""

    def __init__(self, capture: CaptureSource) -> None:
        """Read from `capture`; nothing is worked out before it is asked for."""
        self._capture = capture
        self._derived: dict[int, dict[str, pa.Table]] = {}

    @property
    def path(self) -> Path:
        """Directory of the capture."""
        return self._capture.path

    @property
    def manifest(self) -> Manifest:
        """Who was tapped, when, how."""
        return self._capture.manifest

    @property
    def ranks(self) -> tuple[RankManifest, ...]:
        """The ranks, ascending."""
        return self._capture.ranks

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        rank: int | None = None,
        *,
        last_rows: int | None = None,
    ) -> pa.Table:
        """A table of the schema, of one rank or of all; or only the newest rows."""
        found = self._capture.table(name, columns, rank, last_rows=last_rows)
        if name not in ("steps", "collectives") or rank is None or found.num_rows:
            return found
        if name == "collectives" and self._capture.table("steps", ["step"], rank).num_rows:
            return found
        derived = self._derive(rank)[name]
        return derived if columns is None else derived.select(list(columns))

    def _derive(self, rank: int) -> dict[str, pa.Table]:
        if rank not in self._derived:
            from gputap.profiler.analysis.report import derived_tables

            manifest = next(r for r in self.ranks if r.rank == rank)
            self._derived = {rank: derived_tables(cast("Capture", self._capture), manifest)}
        return self._derived[rank]
