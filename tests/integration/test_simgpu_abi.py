"""What the simulated stack says of NVIDIA's ABI, against NVIDIA's headers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gputap.profiler.cupti.abi import Version
from tests.simgpu.build import HERE
from tools import check_cupti_abi

VERSIONS: tuple[Version, ...] = ((12, 8), (13, 0))
_RUNTIME = re.compile(
    r"^(?:(?:STREAM_)?API_\d|FROM_STREAM_2|LAUNCH|LAUNCH_CONFIGURED|HOST_FUNCTION|COPY_2D_ASYNC)"
    r"\((\w+), (?:(\w+), )?(\d+)(?:, (\d+))?",
    re.MULTILINE,
)
_BODY = re.compile(r"BODY\((\w+), (\d+),")
_DRIVER = re.compile(
    r"^(?:DRIVER_\d|DEVICE_\d|CALL_\d|LAUNCH|LAUNCH_CONFIGURED)\((\w+), (\d+)", re.MULTILINE
)
_TWIN = re.compile(r'\{(\d+), (\d+), "(\w+)"\}')


def headers(version: Version) -> Path:
    try:
        return check_cupti_abi.fetched(version)
    except check_cupti_abi.Unavailable as exc:
        pytest.skip(str(exc))


def ids(version: Version, domain: str) -> dict[int, str]:
    """Names of calls by CUPTI's ids, without the version that ends them."""
    (file,) = headers(version).glob(f"nvidia/*/include/cupti_{domain}_cbid.h")
    found = re.findall(rf"CUPTI_{domain.upper()}_TRACE_CBID_(\w+)\s*=\s*(\d+)", file.read_text())
    return {int(number): re.sub(r"_v\d{4,5}$", "", name) for name, number in found}


@pytest.mark.parametrize("version", VERSIONS, ids=lambda it: f"{it[0]}.{it[1]}")
def test_structures_and_numbers_are_those_of_the_headers(version: Version) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folders = headers(version).glob("nvidia/*/include")
    options = [option for folder in folders for option in ("-isystem", str(folder))]
    done = subprocess.run(
        ["cc", "-std=c11", "-fsyntax-only", f"-I{HERE}", *options, str(HERE / "abi_check.c")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def runtime_calls() -> Iterator[tuple[str, int]]:
    for file in (HERE / "cudart").glob("*.c"):
        text = file.read_text()
        for name, second, cbid, twin in _RUNTIME.findall(text):
            yield (second if second.startswith(("cuda", "__cuda")) else name), int(cbid)
            if twin:
                yield f"{name}_ptsz", int(twin)
        yield from ((name, int(cbid)) for name, cbid in _BODY.findall(text))


def driver_calls() -> Iterator[tuple[str, int]]:
    for file in (HERE / "cuda").glob("*.c"):
        text = file.read_text()
        yield from ((name, int(cbid)) for name, cbid in _DRIVER.findall(text))
        yield from ((name, int(cbid)) for name, cbid in _BODY.findall(text))


def bare(name: str) -> str:
    """Without what tells versions of a call and default streams apart."""
    return re.sub(r"(_v\d|_ptsz|_ptds)", "", name)


def test_ids_of_runtime_calls_are_cuptis() -> None:
    known = ids((13, 0), "runtime")
    calls = list(runtime_calls())
    assert len(calls) > 100
    wrong = {name: known.get(cbid) for name, cbid in calls if bare(known[cbid]) != bare(name)}
    assert wrong == {}
    twins = [name for name, cbid in calls if ("_pts" in name) and "_pt" not in known[cbid]]
    assert twins == []


def test_ids_of_driver_calls_are_cuptis() -> None:
    known = ids((13, 0), "driver")
    calls = list(driver_calls())
    assert len(calls) > 80
    wrong = {name: known.get(cbid) for name, cbid in calls if bare(known[cbid]) != bare(name)}
    assert wrong == {}


def test_ids_of_nested_driver_calls_are_cuptis() -> None:
    runtime, driver = ids((13, 0), "runtime"), ids((13, 0), "driver")
    twins = _TWIN.findall((HERE / "cudart" / "call.c").read_text())
    assert len(twins) > 30
    assert [int(it[0]) for it in twins] == sorted(int(it[0]) for it in twins)
    assert {int(it[0]) for it in twins} <= set(runtime)
    wrong = {
        name: driver.get(int(cbid))
        for _, cbid, name in twins
        if bare(driver[int(cbid)]) != bare(name)
    }
    assert wrong == {}


def test_every_test_bed_file_is_free_of_nvidias_headers() -> None:
    foreign = re.compile(r"#\s*include\s*[<\"](cuda|cupti|nccl|nvml|driver_types)")
    files = [it for it in HERE.rglob("*.[ch]") if it.name != "abi_check.c"]
    assert len(files) > 50
    assert [it.name for it in files if foreign.search(it.read_text())] == []
