"""Reading a capture: as Arrow tables, or with SQL.

What is on disk counts, not what the manifest lists: a killed gputap leaves closed parts behind,
and they are read. Damaged parts are left out, listed and said.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from gputap.profiler import schema
from gputap.profiler.columns import dictionary, numbers, strings
from gputap.profiler.errors import CaptureUnreadable, UsageError
from gputap.profiler.manifest import MANIFEST_NAME, Manifest, Part, RankManifest
from gputap.profiler.parts import (
    PARTITION_KEYS,
    TABLES,
    conform,
    parse_partition,
    part_paths,
    table_named,
)
from gputap.profiler.schema import EventFlag

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_SQL_TYPES: Final = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "dictionary": "VARCHAR",
}


MOST_EVENTS: Final = 2_000_000
"""Events of a rank that reports and exports take into memory, the newest: some 700 MB to 1.5 GB.
Long captures have more, which is said; `query` sees them all."""

_SWITCHED_OFF: Final = (
    "autoinstall_known_extensions",
    "autoload_known_extensions",
    "python_enable_replacements",  # else SQL could name Python variables of ours
    "enable_external_access",
)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A part that cannot be read, and why."""

    path: str
    """Relative to the capture."""
    reason: str


@dataclass(frozen=True, slots=True)
class PartFile:
    """A readable part on disk."""

    path: Path
    table: str
    job: str
    host: str
    rank: int
    rows: int


class Capture:
    """An opened capture. `open` has checked every part that it lists."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        files: Sequence[PartFile],
        damaged: Sequence[Damaged],
    ) -> None:
        """Use `open`."""
        self.path: Final = path
        self.manifest: Final = manifest
        self._files = list(files)
        self._damaged = list(damaged)
        listed = {path / part.path for part in manifest.parts}
        self._verified = {file.path for file in files if file.path in listed}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Capture:
        """Open the capture in directory `path` (or at its manifest.json).

        Raises CaptureUnreadable if it is none, is of a newer version, or no part can be read.
        """
        root = Path(path)
        if root.name == MANIFEST_NAME:
            root = root.parent
        manifest = _read_manifest(root)
        listed = {part.path: part for part in manifest.parts}
        files, damaged = _check_parts(root, listed)
        if damaged and not files:
            raise CaptureUnreadable(
                f"Every part of the capture {root} is damaged, e.g. {damaged[0].path}:"
                f" {damaged[0].reason}.",
                hint="Capture again; a copy may have been cut short.",
            )
        return cls(root, manifest, files, damaged)

    @property
    def damaged(self) -> tuple[Damaged, ...]:
        """Parts that are left out. May grow when a table is read."""
        return tuple(self._damaged)

    @property
    def files(self) -> tuple[PartFile, ...]:
        """The readable parts, in order of their paths."""
        return tuple(self._files)

    @property
    def ranks(self) -> tuple[RankManifest, ...]:
        """The ranks, ascending; those with parts but without a manifest entry included."""
        ranks = {f.rank: RankManifest(rank=f.rank, host=f.host) for f in self._files}
        ranks.update({r.rank: r for r in self.manifest.ranks})
        return tuple(ranks[number] for number in sorted(ranks))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must be told: not closed, truncated, damaged. Empty if all is well."""
        notes = []
        if self.manifest.state == "open":
            notes.append(
                "the capture was not closed: gputap was killed or is still writing;"
                f" {len(self._files)} parts readable"
            )
        if self.manifest.state == "truncated":
            notes.append(f"the capture was cut short: {self.manifest.reason}")
        if self._damaged:
            names = ", ".join(d.path for d in self._damaged[:3])
            more = ", ..." if len(self._damaged) > 3 else ""
            notes.append(f"{len(self._damaged)} damaged parts left out: {names}{more}")
        return tuple(notes)

    def rows(self, table: str, rank: int | None = None) -> int:
        """Rows of a table, from the parts' footers."""
        return sum(f.rows for f in self._of(table_named(table).name, rank))

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        rank: int | None = None,
        *,
        last_rows: int | None = None,
    ) -> pa.Table:
        """A table, or some columns of it, of one rank or of all.

        Columns `job`, `host` (dictionary) and `rank` (int32) can be asked for like the others and
        come last by default. Dictionaries are unified: a code means the same in every chunk.
        `last_rows` reads only the newest parts: those that together have so many rows at most,
        and one at least.
        """
        import pyarrow as pa

        table = table_named(name)
        wanted = list(columns) if columns is not None else _all_columns(table)
        _check_columns(table, wanted)
        files = self._of(name, rank)
        if last_rows is not None:
            files = _newest(files, last_rows)
        pieces = [self._read(f, table, wanted) for f in files]
        present = [piece for piece in pieces if piece is not None]
        if not present:
            return _full_schema(table).empty_table().select(wanted)
        return pa.concat_tables(present).unify_dictionaries()

    def duckdb(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with one view per table, which reaches no other file.

        Views have the partition columns `job`, `host` and `rank` (integer); a table that was not
        written is an empty view; `events` leaves out what is flagged REDISPATCH. The connection
        could write into the capture's own directory:
        for SQL typed by people use `query`.
        """
        import duckdb

        self._verify()
        connection = duckdb.connect()
        root = self.path.resolve()
        connection.execute(f"SET allowed_directories = [{_quoted(str(root))}]")
        for option in _SWITCHED_OFF:
            connection.execute(f"SET {option} = false")
        connection.execute("SET lock_configuration = true")
        for table in schema.TABLES:
            files = self._of(table.name, None)
            connection.execute(_view(table, [f.path.resolve() for f in files]))
        return connection

    def query(self, sql: str) -> pa.Table:
        """The result of one SELECT over the views of `duckdb`. Reads the capture and nothing else.

        Raises UsageError with DuckDB's message if the SQL is wrong or does anything but read.
        """
        import duckdb

        with self.duckdb() as connection:
            try:
                _check_read_only(connection, sql)
                return connection.sql(sql).to_arrow_table()
            except duckdb.Error as exc:
                raise UsageError(f"The query failed: {exc}", hint=_QUERY_HINT) from exc

    def _of(self, table: str, rank: int | None) -> list[PartFile]:
        return [f for f in self._files if f.table == table and rank in (None, f.rank)]

    def _read(self, file: PartFile, table: schema.Table, wanted: list[str]) -> pa.Table | None:
        import pyarrow as pa

        try:
            data = _read_part(file, table, [c for c in wanted if c not in PARTITION_KEYS])
        except (OSError, pa.ArrowException, ValueError) as exc:
            self._leave_out(file, _first_line(exc))
            return None
        same = np.zeros(data.num_rows, np.int32)
        for key, value in (("job", file.job), ("host", file.host)):
            if key in wanted:
                data = data.append_column(key, dictionary(same, strings([value])))
        if "rank" in wanted:
            data = data.append_column("rank", numbers(same + np.int32(file.rank)))
        return data.select(wanted)

    def _verify(self) -> None:
        """Read the parts that have no checksum in the manifest, so that damage is found once."""
        for file in [f for f in self._files if f.path not in self._verified]:
            self._verified.add(file.path)
            self._read(file, TABLES[file.table], _all_columns(TABLES[file.table]))

    def _leave_out(self, file: PartFile, reason: str) -> None:
        self._files.remove(file)
        self._damaged.append(Damaged(str(file.path.relative_to(self.path)), reason))


_QUERY_HINT: Final = (
    "Tables: " + ", ".join(TABLES) + ". Only one statement that reads, e.g. SELECT, is allowed."
)


def _newest(files: Sequence[PartFile], rows: int) -> list[PartFile]:
    """The last of some parts, which are in the order in which they were written."""
    kept: list[PartFile] = []
    for file in reversed(files):
        rows -= file.rows
        if kept and rows < 0:
            break
        kept.append(file)
    return kept[::-1]


def _read_manifest(root: Path) -> Manifest:
    try:
        raw = (root / MANIFEST_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as exc:
        what = "has no manifest.json" if root.is_dir() else "is not a directory"
        what = what if root.exists() else "does not exist"
        raise CaptureUnreadable(f"{root} is not a capture: it {what}.") from exc
    except OSError as exc:
        raise CaptureUnreadable(f"{root / MANIFEST_NAME} cannot be read: {exc.strerror}.") from exc
    return Manifest.from_json(raw)


def _check_parts(root: Path, listed: dict[str, Part]) -> tuple[list[PartFile], list[Damaged]]:
    files, damaged = [], []
    found = set()
    for table in TABLES:
        for path in part_paths(root, table):
            relative = str(path.relative_to(root))
            found.add(relative)
            where = parse_partition(str(path.parent.relative_to(root / table)))
            try:
                if where is None:
                    raise ValueError("its folder names no rank")
                rows = _check_part(path, listed.get(relative))
            except (OSError, ValueError) as exc:
                damaged.append(Damaged(relative, _first_line(exc)))
                continue
            files.append(PartFile(path, table, *where, rows))
    damaged += [Damaged(path, "it is missing") for path in listed if path not in found]
    return files, damaged


def _check_part(path: Path, listed: Part | None) -> int:
    """Rows of a part. Raises OSError or ValueError (ArrowInvalid is one) if it is damaged.

    A listed part must have its checksum; of another the footer is read here, and page checksums
    guard the rest when it is read.
    """
    import pyarrow.parquet as pq

    if listed is not None:
        raw = path.read_bytes()
        if len(raw) != listed.bytes:
            raise ValueError(f"it has {len(raw)} bytes, {listed.bytes} were written")
        if zlib.crc32(raw) != listed.crc32:
            raise ValueError("its checksum is wrong")
        return listed.rows
    return int(pq.read_metadata(path).num_rows)


def _read_part(file: PartFile, table: schema.Table, wanted: list[str]) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
        present = set(parquet.schema_arrow.names)
        data = parquet.read([c for c in wanted if c in present] or [table.columns[0].name])
    return conform(table, data)


def _all_columns(table: schema.Table) -> list[str]:
    return [column.name for column in table.columns] + list(PARTITION_KEYS)


def _check_columns(table: schema.Table, wanted: Sequence[str]) -> None:
    known = _all_columns(table)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(
            f"Table {table.name} has no column {', '.join(map(repr, unknown))}.",
            hint=f"Columns: {', '.join(known)}.",
        )


def _full_schema(table: schema.Table) -> pa.Schema:
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    types = {"job": text, "host": text, "rank": pa.int32()}
    full = schema.arrow_schema(table)
    for key in PARTITION_KEYS:
        full = full.append(pa.field(key, types[key]))
    return full


def _view(table: schema.Table, paths: list[Path]) -> str:
    """A view with exactly the declared columns: null where an older gputap wrote none."""
    import pyarrow.parquet as pq

    present = set(PARTITION_KEYS).union(pq.read_schema(paths[0]).names) if paths else set()
    columns = [(c.name, _SQL_TYPES[c.type]) for c in table.columns]
    columns += [("job", "VARCHAR"), ("host", "VARCHAR"), ("rank", "INTEGER")]
    select = ", ".join(
        f"CAST({quoted if name in present else 'NULL'} AS {kind}) AS {quoted}"
        for name, kind in columns
        for quoted in [f'"{name}"']
    )
    if not paths:
        return f"CREATE VIEW {table.name} AS SELECT {select} WHERE false"
    listed = ", ".join(_quoted(str(path)) for path in paths)
    # One row per call, as torch.profiler counts. The files have every dispatch.
    bit = int(EventFlag.REDISPATCH)
    once = f" WHERE coalesce(flags, 0) & {bit} = 0" if table is schema.EVENTS else ""
    return (
        f"CREATE VIEW {table.name} AS SELECT {select} FROM read_parquet([{listed}],"
        " hive_partitioning = true, union_by_name = true,"
        f" hive_types = {{'job': VARCHAR, 'host': VARCHAR, 'rank': INTEGER}}){once}"
    )


def _check_read_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(f"Expected one statement, got {len(statements)}.", hint=_QUERY_HINT)
    # Not EXPLAIN: EXPLAIN ANALYZE runs what it explains, a COPY too.
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = statements[0].type.name
        raise UsageError(f"{kind} statements are not allowed here.", hint=_QUERY_HINT)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
