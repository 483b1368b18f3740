"""The agent loads into any glibc from 2.17 on, and into musl: it imports next to nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gputap.profiler import schema

AGENT = Path(__file__).resolve().parents[2] / "injectors" / "bin" / "libgputap_agent.so"
IMPORTS = {"__tls_get_addr"}
EXPORTS = {"gputap_agent_enter", "gputap_agent_abi"}
OLDEST_GLIBC = (2, 17)

pytestmark = [
    pytest.mark.skipif(not AGENT.exists(), reason="not built: run `make build`"),
    pytest.mark.skipif(shutil.which("readelf") is None, reason="needs binutils"),
]


def readelf(*options: str) -> str:
    done = subprocess.run(
        ["readelf", "-W", *options, str(AGENT)], check=True, capture_output=True, text=True
    )
    return done.stdout


def symbols() -> list[tuple[str, str, str]]:
    """(section, binding, name) of every dynamic symbol."""
    rows = [line.split() for line in readelf("--dyn-syms").splitlines()]
    return [(r[6], r[4], r[7]) for r in rows if len(r) > 7 and r[0][:-1].isdigit()]


def test_exports_are_exactly_two() -> None:
    found = {
        name for section, binding, name in symbols() if section != "UND" and binding != "LOCAL"
    }
    assert found == EXPORTS


def test_imports_are_the_allowed_ones() -> None:
    found = {name.split("@")[0] for section, _, name in symbols() if section == "UND"}
    assert found <= IMPORTS


def test_no_library_is_needed() -> None:
    assert "(NEEDED)" not in readelf("-d")


def test_versions_are_old() -> None:
    text = readelf("--version-info", "--dyn-syms")
    versions = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", text)]
    assert all(version <= OLDEST_GLIBC for version in versions)


def test_nothing_runs_when_it_is_loaded() -> None:
    dynamic = readelf("-d")
    for tag in ("INIT", "INIT_ARRAY", "FINI", "FINI_ARRAY", "TEXTREL"):
        assert f"({tag})" not in dynamic


def test_memory_is_never_writable_and_executable() -> None:
    segments = [line.split() for line in readelf("-l").splitlines()]
    flags = [row for row in segments if row[:1] in (["LOAD"], ["GNU_STACK"])]
    assert flags
    assert not [row for row in flags if "RWE" in row]


def test_it_says_the_version_of_the_shared_memory() -> None:
    table = readelf("--dyn-syms")
    address = next(
        int(line.split()[1], 16) for line in table.splitlines() if "gputap_agent_abi" in line
    )
    section = next(
        row
        for row in (line.split() for line in readelf("-S").replace("[ ", "[").splitlines())
        if len(row) > 5 and row[1] == ".rodata"
    )
    at = address - int(section[3], 16) + int(section[4], 16)
    words = AGENT.read_bytes()[at : at + 16]
    assert int.from_bytes(words[:8], "little") == schema.ABI_VERSION
    assert int.from_bytes(words[8:], "little") != 0
