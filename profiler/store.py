"""Writing a capture: a directory of `manifest.json` and hive-style Parquet parts.

Every part is complete the moment it has its name (temporary name, fsync, rename), so a killed
gputap leaves all of them readable. Everything is owner-only. Reading is `capture.Capture`.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import gputap
from gputap.profiler.capture import Capture
from gputap.profiler.errors import CaptureNotWritable
from gputap.profiler.manifest import (
    MANIFEST_NAME,
    ClockManifest,
    Manifest,
    Part,
    RankManifest,
    State,
)
from gputap.profiler.parts import (
    TABLES,
    conform,
    parquet_options,
    part_name,
    partition,
    table_named,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Capture",
    "CaptureWriter",
    "ClockManifest",
    "Manifest",
    "Part",
    "RankManifest",
    "check_writable",
]

REPORT_NAME: Final = "report.html"

_RESERVE_NAME: Final = ".reserve"
_RESERVE_BYTES: Final = 256 * 1024
"""Kept aside, so that the last manifest fits on a disk that has run full."""


class CaptureWriter:
    """Writes one capture. Not for several threads at once.

    `write` raises CaptureNotWritable when the disk is full or gone; parts written before stay
    readable, and `close` then marks the capture as truncated, with the reason.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        job: str,
        source: str = "attach",
        simulated: bool = False,
        overwrite: bool = False,
        created_ns: int | None = None,
    ) -> None:
        """Make the directory and its first manifest. `overwrite` replaces a capture, nothing else.

        Raises CaptureNotWritable if the directory holds anything, belongs to somebody else, is a
        file or a symbolic link, or cannot be written.
        """
        self.path: Final = Path(path)
        self._manifest = Manifest(
            job=job,
            created_ns=time.time_ns() if created_ns is None else created_ns,
            gputap=gputap.__version__,
            source=source,
            simulated=simulated,
        )
        self._ranks: dict[int, RankManifest] = {}
        self._parts: list[Part] = []
        self._numbers: dict[str, int] = {}
        self._failure = ""
        self._closed = False
        try:
            _prepare(self.path, overwrite=overwrite)
            _reserve(self.path / _RESERVE_NAME)
            self._write_manifest("open")
        except OSError as exc:
            raise _not_writable(self.path, exc) from exc

    @property
    def manifest(self) -> Manifest:
        """What the next manifest on disk will say."""
        return replace(self._manifest, ranks=tuple(self._ranks.values()), parts=tuple(self._parts))

    @property
    def failure(self) -> str:
        """Why writing failed; empty while it works."""
        return self._failure

    @property
    def bytes_written(self) -> int:
        """Size of all parts."""
        return sum(part.bytes for part in self._parts)

    def set_rank(self, rank: RankManifest) -> None:
        """Add or replace what the manifest says of one rank, and write the manifest."""
        self._ranks[rank.rank] = rank
        self._ranks = dict(sorted(self._ranks.items()))
        if not self._failure:
            self._guarded(lambda: self._write_manifest("open"))

    def write(self, table: str, data: pa.Table, *, rank: int) -> Part | None:
        """Write `data` as one part of `table`; nothing for no rows. The rank must be set before.

        Rows are written in the order given; absent columns become null.
        """
        if data.num_rows == 0:
            return None
        folder = f"{table}/{partition(self._manifest.job, self._ranks[rank].host, rank)}"
        raw = _encode(table, data)
        number = self._numbers.get(folder, 0)
        path = f"{folder}/{part_name(number)}"
        self._guarded(lambda: _write_atomically(self.path / path, raw, parents_below=self.path))
        part = Part(table, path, data.num_rows, len(raw), zlib.crc32(raw))
        self._numbers[folder] = number + 1
        self._parts.append(part)
        return part

    def close(self, *, truncated: str = "") -> Manifest:
        """Write the last manifest: closed, or truncated for the given reason or our own failure."""
        if self._closed:
            return self._manifest
        reason = truncated or self._failure
        _unlink(self.path / _RESERVE_NAME)
        try:
            self._write_manifest("truncated" if reason else "closed", reason)
        except OSError as exc:
            raise _not_writable(self.path, exc) from exc
        self._closed = True
        return self._manifest

    def __enter__(self) -> CaptureWriter:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; as truncated if the block failed."""
        if kind is None:
            self.close()
            return
        try:
            self.close(truncated=str(value) or kind.__name__)
        except CaptureNotWritable:
            pass  # the block's own error says more

    def _guarded(self, action: Callable[[], None]) -> None:
        if self._failure:
            raise CaptureNotWritable(f"The capture was given up: {self._failure}")
        try:
            action()
        except OSError as exc:
            error = _not_writable(self.path, exc)
            self._failure = error.message
            raise error from exc

    def _write_manifest(self, state: State, reason: str = "") -> None:
        self._manifest = replace(self.manifest, state=state, reason=reason)
        text = self._manifest.to_json().encode()
        _write_atomically(self.path / MANIFEST_NAME, text, parents_below=self.path)


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Raise CaptureNotWritable if a capture cannot be made at `path`. Writes nothing."""
    if path.is_symlink():
        raise CaptureNotWritable(
            f"{path} is a symbolic link; captures are not written through one."
        )
    try:
        if path.exists():
            _check_existing(path, overwrite=overwrite, dry_run=True)
            place = path
        else:
            place = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as exc:
        raise _not_writable(path, exc) from exc
    if not place.is_dir():
        raise _not_writable(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(place, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise _not_writable(path, OSError(code, os.strerror(code)))


def _encode(table: str, data: pa.Table) -> pa.Buffer:
    """The part's bytes. In memory, so that one write either works or says why not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    declared = table_named(table)
    sink = pa.BufferOutputStream()
    pq.write_table(conform(declared, data), sink, **parquet_options(declared))
    return sink.getvalue()


def _prepare(path: Path, *, overwrite: bool) -> None:
    if path.is_symlink():
        raise CaptureNotWritable(
            f"{path} is a symbolic link; captures are not written through one."
        )
    if path.exists():
        _check_existing(path, overwrite=overwrite)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)


def _check_existing(path: Path, *, overwrite: bool, dry_run: bool = False) -> None:
    if not path.is_dir():
        raise CaptureNotWritable(f"{path} is a file, not a directory.")
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise CaptureNotWritable(f"{path} belongs to uid {owner}; a capture is for its owner only.")
    if not any(path.iterdir()):
        return
    if not (path / MANIFEST_NAME).is_file():
        raise CaptureNotWritable(f"{path} is not empty and is not a capture.")
    if not overwrite:
        raise CaptureNotWritable(f"{path} already holds a capture.")
    if not dry_run:
        _remove_capture(path)


def _remove_capture(path: Path) -> None:
    """Remove what we write, and nothing else."""
    for name in TABLES:
        if (path / name).is_dir() and not (path / name).is_symlink():
            shutil.rmtree(path / name)
    for name in (MANIFEST_NAME, REPORT_NAME, _RESERVE_NAME):
        _unlink(path / name)


def _reserve(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _RESERVE_BYTES)
    finally:
        os.close(fd)


def _write_atomically(path: Path, raw: bytes | pa.Buffer, *, parents_below: Path) -> None:
    """Write under a hidden temporary name, fsync, rename. Leaves nothing behind on failure."""
    for folder in reversed(path.parents[: len(path.relative_to(parents_below).parts) - 1]):
        folder.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    _unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600)
    try:
        try:
            _write_all(fd, memoryview(raw))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        _unlink(temporary)
        raise


def _write_all(fd: int, raw: memoryview) -> None:
    while raw:
        raw = raw[os.write(fd, raw) :]


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _not_writable(path: Path, exc: OSError) -> CaptureNotWritable:
    causes = {
        errno.ENOSPC: (
            "the disk is full",
            "Free some space, or give another directory with `-o DIR`.",
        ),
        errno.EDQUOT: ("the disk quota is used up", None),
        errno.EFBIG: ("the file size limit (ulimit -f) is reached", None),
        errno.EACCES: ("permission denied", None),
        errno.EPERM: ("permission denied", None),
        errno.EROFS: ("the file system is read-only", None),
        errno.ENOTDIR: ("a part of the path is a file", None),
        errno.EEXIST: ("a part of the path is a file", None),
        errno.ENOENT: ("the directory has gone", None),
        errno.ENAMETOOLONG: ("the name is too long", None),
    }
    cause, hint = causes.get(exc.errno or 0, (exc.strerror or str(exc), None))
    return CaptureNotWritable(f"Cannot write the capture {path}: {cause}.", hint=hint)
