"""What gputap knows of CUPTI is what NVIDIA's headers and libraries say, for each version."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.walk import walk
from tests.unit.profiler.cupti.packing import chunk, record
from tools import check_cupti_abi as check

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ["11.8", "12.1", "12.4", "12.6", "12.8", "12.9", "13.0", "13.1", "13.3", "13.5"]


def compared(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "check_cupti_abi.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


WALK_PROGRAM = """
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **arguments) {
  static uint8_t buffer[1 << 20] __attribute__((aligned(64)));
  FILE *file = fopen(arguments[2], "rb");
  size_t valid = file ? fread(buffer, 1, sizeof buffer, file) : 0;
  void *library = dlopen(arguments[1], RTLD_NOW);
  int (*next)(uint8_t *, size_t, uint8_t **) = 0;
  uint8_t *record = 0;
  if (library) *(void **)&next = dlsym(library, "cuptiActivityGetNextRecord");
  if (!next || count != 3) return 1;
  while (next(buffer, valid, &record) == 0) printf("%ld\\n", (long)(record - buffer));
  return 0;
}
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_sizes_offsets_constants_and_calls_of_the_headers(version: str) -> None:
    """And, up to 13.1, how far the real library steps over each record."""
    done = compared("--versions", version)
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{version}: compared" in done.stderr


def test_a_wrong_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check checks: a size, a place, a width, a constant and a call of another version."""
    version = (13, 0)
    try:
        assert list(check.differences(version)) == []
    except check.Unavailable as exc:
        pytest.skip(str(exc))
    fields = tuple(
        replace(f, offset=f.offset + 4)
        if f.name == "streamId"
        else replace(f, type="<u4")
        if f.name == "graphNodeId"
        else replace(f, since=(13, 1))
        if f.name == "isDeviceLaunched"
        else f
        for f in abi.KERNEL.fields
    )
    wrong = replace(abi.KERNEL, fields=fields, sizes=(((11, 8), 224),))
    monkeypatch.setattr(abi, "RECORDS", (wrong, *abi.RECORDS[1:]))
    monkeypatch.setitem(abi.BY_KIND, abi.ActivityKind.KERNEL, wrong)
    monkeypatch.setattr(check, "CALLS", (replace(check.CALLS[0], name="cudaOther"),))
    found = {(d.what, d.ours, d.theirs) for d in check.differences(version)}
    assert found == {
        ("sizeof(CUpti_ActivityKernel10)", "224", "216"),
        ("CUpti_ActivityKernel10.streamId", "52", "48"),
        ("sizeof(CUpti_ActivityKernel10.graphNodeId)", "4", "8"),
        ("CUpti_ActivityKernel10.isDeviceLaunched", "None", "208"),
        ("runtime call 13", "cudaOther", "cudaLaunch"),
        ("step of libcupti.so.13 over KERNEL", "224", "216"),
    }


def test_without_wheels_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUTAP_CUPTI_HEADERS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    done = compared("--versions", "13.0")
    assert done.returncode == 2
    assert "not compared: nvidia-cuda-cupti==13.0.85 cannot be had" in done.stderr
    assert compared("--versions", "13.0", "--optional").returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [(11, 8), (12, 1), (12, 4), (12, 8), (13, 0), (13, 1)])
def test_the_real_library_walks_the_same_way(version: abi.Version, tmp_path: Path) -> None:
    """Record by record through a buffer of all kinds, whose other bytes are anything."""
    chance = random.Random(5)
    kinds = chance.choices(list(abi.BY_KIND), k=3000)
    data, offsets, number = chunk(
        [record(k, version, chance.randrange(256)) for k in kinds], version
    )
    (tmp_path / "buffer").write_bytes(data.tobytes())
    try:
        (library,) = check.fetched(version).glob("nvidia/*/lib/libcupti.so*")
        found = check.ran(WALK_PROGRAM, [], [str(library), str(tmp_path / "buffer")])
    except check.Unavailable as exc:
        pytest.skip(str(exc))
    theirs = [int(line) for line in found.split()]
    assert theirs == offsets.tolist() == walk(data, number).offsets.tolist()
