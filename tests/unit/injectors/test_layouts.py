"""The tables of layouts say what the headers say."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from gputap.injectors.library.layouts import cpython, torch
from gputap.injectors.library.layouts.cpython import PUBLISHED, TABLE, PythonLayout
from gputap.injectors.library.layouts.torch import TorchLayout
from gputap.profiler import schema

HERE = Path(__file__).parent


def _includes() -> list[Path]:
    """Header folders of every CPython on the machine that has internal headers."""
    roots = [Path(sysconfig.get_paths()["include"])]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    roots += sorted(pyenv.glob("versions/3.*/include/python3.*"))
    roots += sorted(Path("/usr/include").glob("python3.*"))
    roots += [Path(p) for p in os.environ.get("GPUTAP_TEST_PYTHON_INCLUDES", "").split(":") if p]
    return [p for p in dict.fromkeys(roots) if (p / "internal").is_dir()]


def _version(include: Path) -> tuple[int, int]:
    text = (include / "patchlevel.h").read_text()
    major, minor = (
        int(re.findall(rf"#define PY_{part}_VERSION\s+(\d+)", text)[0])
        for part in ("MAJOR", "MINOR")
    )
    return major, minor


def _compile(compiler: str, source: Path, to: Path, *flags: str) -> dict[str, int]:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    subprocess.run([compiler, "-w", *flags, "-o", to, source], check=True)
    out = subprocess.run([to], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in out.splitlines())}


def _published(include: Path, version: tuple[int, int]) -> PythonLayout:
    """What the interpreter that belongs to the headers publishes about itself."""
    python = include.parents[1] / "bin" / f"python{version[0]}.{version[1]}"
    if not python.exists():
        pytest.skip(f"no {python}")
    code = (
        "import ctypes, sys; d = ctypes.pythonapi;"
        "sys.stdout.write(ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll("
        "d, '_PyRuntime')), 4096).hex())"
    )
    try:
        raw = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"{python} does not run here")
    layout = cpython.from_debug_offsets(version, bytes.fromhex(raw.stdout))
    assert layout is not None
    return layout


@pytest.mark.parametrize("include", _includes(), ids=lambda p: p.name + "-" + p.parts[-3])
def test_cpython_table_is_what_the_headers_say(include: Path, tmp_path: Path) -> None:
    version = _version(include)
    if version not in TABLE and version not in PUBLISHED:
        pytest.skip(f"CPython {version} is not supported")
    said = _compile(
        "gcc",
        HERE / "cpython_offsets.c",
        tmp_path / "offsets",
        f"-I{include}",
        f"-I{include}/internal",
        f"-I{include.parent}",
        *(f"-I{p}" for p in include.parent.glob(f"*-linux-gnu/{include.name}")),
    )
    layout = TABLE.get(version) or _published(include, version)
    assert {name: getattr(layout, name) for name in said} == said
    assert layout.version == version[0] * 256 + version[1]


def test_every_layout_has_the_fields_of_the_wire() -> None:
    for struct, layout in (
        (schema.TORCH_LAYOUT, TorchLayout),
        (schema.PYTHON_LAYOUT, PythonLayout),
    ):
        names = [f.name for f in struct.fields if not f.name.startswith("pad")]
        assert [f.name for f in dataclasses.fields(layout)] == names
        assert len(layout().packed()) == struct.size


def test_torch_table_is_what_the_installed_headers_say(tmp_path: Path) -> None:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        pytest.skip("torch is not installed")
    package = Path(spec.origin).parent
    if not (package / "include/ATen/record_function.h").exists():
        pytest.skip("torch has no headers")
    version = re.findall(r"__version__ = '([^']+)'", (package / "version.py").read_text())[0]
    said = _compile(
        "g++",
        HERE / "torch_offsets.cpp",
        tmp_path / "offsets",
        "-std=c++20",
        "-O1",  # drops the inline functions that would need libtorch to link
        f"-I{package}/include",
    )
    layout, reason = torch.choose(version, True)
    assert reason is None
    assert {name: getattr(layout, name) for name in said} == said


def test_old_string_abi_and_versions_without_keyword_inputs() -> None:
    old, _ = torch.choose("2.5.1+cu124", False)
    assert (old.fn_index, old.seq, old.inputs, old.forward_thread_id) == (168, 176, 184, 280)
    older, _ = torch.choose("2.0.1", False)
    assert (older.seq, older.forward_thread_id) == (176, 224)
    new, _ = torch.choose("2.3.0", True)
    assert (new.seq, new.forward_thread_id) == (200, 248)


@pytest.mark.parametrize(
    ("version", "abi"), [(None, True), ("nonsense", True), ("1.13.1", False), ("2.16.0", True)]
)
def test_unknown_torch_gives_names_and_times_only(version: str | None, abi: bool) -> None:
    layout, reason = torch.choose(version, abi)
    assert (layout.seq, layout.scope, layout.fn_index) == (-1, -1, -1)
    assert reason is not None and "names and times" in reason


def test_unknown_string_abi_keeps_what_does_not_depend_on_it() -> None:
    layout, reason = torch.choose("2.13.0", None)
    assert (layout.scope, layout.seq) == (96, -1)
    assert reason is not None


def test_cpython_that_cannot_be_walked_says_why() -> None:
    def nothing(size: int) -> bytes | None:
        return None

    for version, flags, word in (
        (None, {}, "no CPython"),
        ((3, 7), {}, "table"),
        ((3, 15), {}, "table"),
        ((3, 13), {}, "publishes"),
        ((3, 12), {"debug": True}, "debug"),
        ((3, 13), {"free_threaded": True}, "free-threaded"),
    ):
        layout, reason = cpython.choose(version, nothing, **flags)
        assert layout.enabled == 0
        assert reason is not None and word in reason
    assert cpython.choose((3, 11), nothing) == (TABLE[3, 11], None)


def test_implausible_published_offsets_are_refused() -> None:
    count = sum(len(fields.split()) for _, fields in PUBLISHED[3, 13].sections)
    good = [64] * count
    good[1], good[2] = 0x030D00F0, 0

    def raw(numbers: list[int]) -> bytes:
        return cpython.COOKIE + b"".join(n.to_bytes(8, "little") for n in numbers[1:])

    assert cpython.from_debug_offsets((3, 13), raw(good)) is not None
    for index, value in ((1, 0x030E00F0), (2, 1), (count - 1, 2**40)):
        bad = list(good)
        bad[index] = value
        assert cpython.from_debug_offsets((3, 13), raw(bad)) is None
    assert cpython.from_debug_offsets((3, 13), b"x" * 8 * count) is None
    assert cpython.from_debug_offsets((3, 13), raw(good)[:-1]) is None


def test_this_interpreter_is_supported() -> None:
    assert sys.version_info[:2] in TABLE or sys.version_info[:2] in PUBLISHED
