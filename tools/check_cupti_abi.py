"""Compare what gputap knows of CUPTI with NVIDIA's own headers and libraries, version by version.

    python tools/check_cupti_abi.py [--versions 12.8,13.0] [--optional]

Downloads the wheels from PyPI into build/cupti-headers (their licence forbids to keep the headers
in the tree), compiles a C program that prints every size, offset, constant and call id, and lets
the real `cuptiActivityGetNextRecord` step over records of every kind, where the library does that
without a driver (to 13.1). Exit code 0: all equal; 1: differences, in a table; 2: the wheels or a
C compiler cannot be had (0 with --optional).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.abi import Version
from gputap.profiler.cupti.callbacks import CALLS, Domain

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("GPUTAP_CUPTI_HEADERS", ROOT / "build" / "cupti-headers"))

# CUPTI, the runtime's headers (cuda.h), and the compiler's (crt/host_defines.h).
WHEELS: dict[Version, tuple[str, str, str]] = {
    (11, 8): ("11.8.87", "11.8.89", "11.8.89"),
    (12, 0): ("12.0.146", "12.0.146", "12.0.140"),
    (12, 1): ("12.1.105", "12.1.105", "12.1.105"),
    (12, 2): ("12.2.142", "12.2.140", "12.2.140"),
    (12, 3): ("12.3.101", "12.3.101", "12.3.107"),
    (12, 4): ("12.4.127", "12.4.127", "12.4.131"),
    (12, 5): ("12.5.82", "12.5.82", "12.5.82"),
    (12, 6): ("12.6.80", "12.6.77", "12.6.85"),
    (12, 8): ("12.8.90", "12.8.90", "12.8.93"),
    (12, 9): ("12.9.79", "12.9.79", "12.9.86"),
    (13, 0): ("13.0.85", "13.0.96", "13.0.88"),
    (13, 1): ("13.1.115", "13.1.80", "13.1.115"),
    (13, 2): ("13.2.86", "13.2.86", "13.2.86"),
    (13, 3): ("13.3.75", "13.3.29", "13.3.73"),
    (13, 4): ("13.4.92", "13.4.92", "13.4.92"),
    (13, 5): ("13.5.25", "13.5.37", "13.5.37"),
}
NEWEST = max(WHEELS)

STEPS_WITHOUT_DRIVER = (13, 1)
"""Later libraries do nothing, or crash, where there is no libcuda."""

ENUMS: tuple[tuple[type[IntEnum], str], ...] = (
    (abi.ActivityKind, "CUPTI_ACTIVITY_KIND_"),
    (abi.MemcpyKind, "CUPTI_ACTIVITY_MEMCPY_KIND_"),
    (abi.MemoryKind, "CUPTI_ACTIVITY_MEMORY_KIND_"),
    (abi.SynchronizationType, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_"),
    (abi.OverheadKind, "CUPTI_ACTIVITY_OVERHEAD_"),
    (abi.Result, "CUPTI_"),
)

WIDER_IN_C = {"objectId"}
"""Unions of which only the first word is read."""

RETIRED = re.compile(r"(reserved|cuda)\d+$")
"""Names of calls that were taken out; their ids are not given to others."""

STEP_PROGRAM = """
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
/* Every word of the buffer is the kind: wherever the library lands is a record of that kind. */
enum { BYTES = 4096 };
int main(int count, char **arguments) {
  void *library = dlopen(arguments[1], RTLD_NOW);
  int (*next)(uint8_t *, size_t, uint8_t **) = 0;
  if (library) *(void **)&next = dlsym(library, "cuptiActivityGetNextRecord");
  uint32_t *words = aligned_alloc(64, BYTES);
  if (!next || !words) return 1;
  for (int i = 2; i < count; i++) {
    uint32_t kind = (uint32_t)atoi(arguments[i]);
    for (int at = 0; at < BYTES / 4; at++) words[at] = kind;
    uint8_t *record = 0, *first;
    if (next((uint8_t *)words, BYTES, &record)) continue;
    first = record;
    if (next((uint8_t *)words, BYTES, &record)) continue;
    printf("%u %ld\\n", kind, (long)(record - first));
  }
  return 0;
}
"""


class Unavailable(Exception):
    """The wheels or a compiler cannot be had."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is otherwise than gputap thinks."""

    version: Version
    what: str
    ours: str
    theirs: str


# ------------------------------------------------------------------------------------- wheels


def wheels_of(version: Version) -> list[str]:
    """Requirements for pip."""
    cupti, runtime, compiler = WHEELS[version]
    suffix = f"-cu{version[0]}" if version < (13, 0) else ""
    headers = "nvidia-cuda-crt" if version >= (13, 0) else f"nvidia-cuda-nvcc{suffix}"
    return [
        f"nvidia-cuda-cupti{suffix}=={cupti}",
        f"nvidia-cuda-runtime{suffix}=={runtime}",
        f"{headers}=={compiler}",
    ]


def fetched(version: Version) -> Path:
    """The folder with a version's headers and library. Raises Unavailable."""
    folder = CACHE / text_of(version)
    if any(folder.glob("nvidia/*/include/cupti.h")) and any(folder.rglob("host_defines.h")):
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        download(wheels_of(version), Path(scratch))
        found = Path(scratch) / "out"
        for wheel in sorted(Path(scratch).glob("*.whl")):
            unpack(wheel, found)
        shutil.rmtree(folder, ignore_errors=True)
        found.rename(folder)
    return folder


def download(requirements: list[str], folder: Path) -> None:
    """The wheels as pip gets them. Raises Unavailable."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "1"]
    command += ["--timeout", "20", "--only-binary", ":all:", "-d", str(folder), *requirements]
    done = subprocess.run(
        command, env={**os.environ, "PIP_CONSTRAINT": ""}, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        raise Unavailable(f"{requirements[0]} cannot be had: {lines[-1]}")


def unpack(wheel: Path, folder: Path) -> None:
    """Headers and libcupti, nothing else of the hundreds of megabytes."""
    wanted = re.compile(r"nvidia/[^/]+/(include/.+\.h|bin/crt/.+\.h|lib/libcupti\.so[.\d]*)$")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if wanted.match(n)])


# ---------------------------------------------------------------------------- what the headers say


class Headers:
    """The headers of one version: their text, and what a compiler makes of them."""

    def __init__(self, version: Version) -> None:
        """Raises Unavailable."""
        self.version = version
        self.folder = fetched(version)
        files = sorted(self.folder.glob("nvidia/*/include/cupti*.h"))
        self.text = "\n".join(file.read_text(errors="replace") for file in files)
        self.values = dict(line.rsplit(" ", 1) for line in self._compiled().splitlines())

    def struct_of(self, record: abi.Record) -> str:
        """The newest generation of a struct: the one that is delivered."""
        found = re.findall(rf"\}} (CUpti_Activity{record.struct}(\d*));", self.text)
        if not found:
            raise Unavailable(f"no struct {record.struct} in the headers of {self.version}")
        return str(max(found, key=lambda name: int(name[1] or 1))[0])

    def has_field(self, struct: str, field: str) -> bool:
        """Whether a struct has a field."""
        body = self.text[: self.text.index(f"}} {struct};")]
        body = body[body.rindex("typedef struct") :]
        return bool(re.search(rf"\b{field}(\[[^\]]*\])?;", body))

    def value(self, name: str) -> int | None:
        """A number by what it is called in the program; None if the headers lack it."""
        found = self.values.get(name)
        return None if found is None else int(found)

    def calls(self) -> dict[tuple[int, int], str]:
        """Names of the calls by domain and id, without version and stream suffixes."""
        found = {}
        for name, value in self.values.items():
            match = re.match(r"CUPTI_(DRIVER|RUNTIME)_TRACE_CBID_(\w+)$", name)
            if match:
                bare = re.sub(r"(_v\d+|_ptsz|_ptds)+$", "", match[2])
                found[int(Domain[match[1]]), int(value)] = bare
        return found

    def _expressions(self) -> Iterator[tuple[str, str]]:
        """Name and C expression of everything that is asked."""
        yield "api_version", "CUPTI_API_VERSION"
        for enum, prefix in ENUMS:
            for member in enum:
                name = enumerator(prefix, member)
                if re.search(rf"\b{name}\b", self.text):
                    yield name, name
        for name in set(re.findall(r"\bCUPTI_(?:DRIVER|RUNTIME)_TRACE_CBID_\w+", self.text)):
            if not name.endswith(("_SIZE", "_FORCE_INT", "_INVALID")):
                yield name, name
        for record in abi.RECORDS:
            struct = self.struct_of(record)
            yield record.name, f"sizeof({struct})"
            for field in record.fields:
                if self.has_field(struct, field.name):
                    place = f"(({struct} *)0)->{field.name}"
                    yield f"{record.name}.{field.name}@", f"offsetof({struct}, {field.name})"
                    yield f"{record.name}.{field.name}#", f"sizeof({place})"

    def _compiled(self) -> str:
        """What the program prints. Raises Unavailable without a compiler."""
        lines = [f'  printf("{n} %ld\\n", (long)({value}));' for n, value in self._expressions()]
        program = "\n".join(
            [
                *("#include <stddef.h>", "#include <stdio.h>", "#include <cupti.h>"),
                *("int main(void) {", *lines, "  return 0;", "}", ""),
            ]
        )
        folders = [*self.folder.glob("nvidia/*/include"), *self.folder.glob("nvidia/*/bin")]
        return ran(program, [f"-I{folder}" for folder in folders], [])


def enumerator(prefix: str, member: IntEnum) -> str:
    """A constant as NVIDIA calls it."""
    if isinstance(member, abi.Result):
        return "CUPTI_SUCCESS" if member is abi.Result.SUCCESS else f"CUPTI_ERROR_{member.name}"
    return prefix + member.name


def ran(program: str, flags: list[str], arguments: list[str]) -> str:
    """Compile a program and run it. Raises Unavailable without a compiler or if it crashes."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if not compiler:
        raise Unavailable("there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "p.c"), Path(folder, "p")
        source.write_text(program)
        command = [compiler, "-w", "-o", str(binary), str(source), *flags, "-ldl"]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise Unavailable(f"the headers cannot be compiled: {made.stderr[:500]}")
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Unavailable(f"the compiled program ended with {done.returncode}")
    return done.stdout


# --------------------------------------------------------------------------------- comparisons


def differences(version: Version) -> Iterator[Difference]:
    """Everything that is otherwise in one version. Raises Unavailable."""
    headers = Headers(version)
    yield from in_constants(headers)
    yield from in_calls(headers)
    for record in abi.RECORDS:
        yield from in_record(headers, record)
    yield from in_versions(headers)
    if version <= STEPS_WITHOUT_DRIVER:
        yield from in_steps(headers)


def in_constants(headers: Headers) -> Iterator[Difference]:
    """Constants may be missing in older versions, never in the newest."""
    for enum, prefix in ENUMS:
        for member in enum:
            found = headers.value(enumerator(prefix, member))
            if found != int(member) and (found is not None or headers.version == NEWEST):
                yield Difference(
                    headers.version, enumerator(prefix, member), str(int(member)), str(found)
                )


def in_calls(headers: Headers) -> Iterator[Difference]:
    """An id may be unused in an older version, but never be another call's."""
    known = headers.calls()
    for call in CALLS:
        found = known.get((int(call.domain), call.cbid))
        if found is not None and RETIRED.match(found):
            continue
        if found != call.name and (found is not None or headers.version == NEWEST):
            what = f"{call.domain.name.lower()} call {call.cbid}"
            yield Difference(headers.version, what, call.name, str(found))


def in_record(headers: Headers, record: abi.Record) -> Iterator[Difference]:
    """Size of a record, place and width of its fields."""
    version, struct = headers.version, headers.struct_of(record)
    if headers.value(record.name) != record.size(version):
        yield Difference(
            version,
            f"sizeof({struct})",
            str(record.size(version)),
            str(headers.value(record.name)),
        )
    for field in record.fields:
        name = f"{record.name}.{field.name}"
        offset, width = headers.value(f"{name}@"), headers.value(f"{name}#")
        expected = field.offset if field.since <= version else None
        if offset != expected:
            yield Difference(version, f"{struct}.{field.name}", str(expected), str(offset))
        ours = int(field.type[2:])
        if width is not None and width != ours and field.name not in WIDER_IN_C:
            yield Difference(version, f"sizeof({struct}.{field.name})", str(ours), str(width))


def in_versions(headers: Headers) -> Iterator[Difference]:
    """Whether the library's own version number leads back to the CUDA version."""
    number = headers.value("api_version") or 0
    soname = f"libcupti.so.{'11.8' if headers.version < (12, 0) else headers.version[0]}"
    found = abi.version_of(number, soname)
    sizes = [[record.size(of) for record in abi.RECORDS] for of in (found, headers.version)]
    # 12.0 and 12.1 have one number, and the same records.
    if found != headers.version and sizes[0] != sizes[1]:
        yield Difference(
            headers.version,
            f"version_of({number})",
            text_of(found),
            text_of(headers.version),
        )


def in_steps(headers: Headers) -> Iterator[Difference]:
    """How far the real library steps over a record of each kind."""
    libraries = sorted(headers.folder.glob("nvidia/*/lib/libcupti.so*"))
    if not libraries:
        raise Unavailable(f"no libcupti in {headers.folder}")
    kinds = [str(int(kind)) for kind in abi.BY_KIND]
    lines = ran(STEP_PROGRAM, [], [str(libraries[0]), *kinds]).splitlines()
    stepped = {int(kind): int(size) for kind, size in (line.split() for line in lines)}
    for kind, record in abi.BY_KIND.items():
        ours, theirs = record.size(headers.version), stepped.get(int(kind))
        if ours != theirs:
            what = f"step of {libraries[0].name} over {kind.name}"
            yield Difference(headers.version, what, str(ours), str(theirs))


# ------------------------------------------------------------------------------------- command


def text_of(version: Version) -> str:
    """`12.8`."""
    return f"{version[0]}.{version[1]}"


def version_from(text: str) -> Version:
    """The other way, for the command line."""
    major, _, minor = text.partition(".")
    version = int(major), int(minor)
    if version not in WHEELS:
        raise argparse.ArgumentTypeError(f"no wheels are known of {text}")
    return version


def table(found: list[Difference]) -> str:
    """The differences as columns of text."""
    rows = [("version", "what", "gputap", "NVIDIA")]
    rows += [(text_of(d.version), d.what, d.ours, d.theirs) for d in found]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main() -> int:
    """Compare; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--versions",
        type=lambda text: [version_from(word) for word in text.split(",")],
        default=list(WHEELS),
        help="CUDA versions, separated by commas; all that are known if left out",
    )
    parser.add_argument("--optional", action="store_true", help="exit with 0 without network")
    options = parser.parse_args()
    found: list[Difference] = []
    try:
        for version in options.versions:
            found += differences(version)
            print(f"{text_of(version)}: compared", file=sys.stderr)
    except Unavailable as exc:
        print(f"not compared: {exc}", file=sys.stderr)
        if not found:
            return 0 if options.optional else 2
    if found:
        print(table(found))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
