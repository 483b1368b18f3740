"""The simulated CUDA stack behaves as `tests/gpu/behaviours*.py` say that CUDA does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import simulated
from tests.gpu.claims import DOES_NOT_APPLY, claims

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("11.8", "12.0", "12.4", "12.6", "12.8", "12.9", "13.0", "13.1", "13.4")


@pytest.fixture(scope="module")
def libraries() -> Path:
    return simulated.libraries()


def run(name: str, libraries: Path, **environment: str) -> int:
    """Runs one claim; its exit status if that is 0 or DOES_NOT_APPLY."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.claims", name],
        cwd=ROOT,
        env=os.environ | {"LD_LIBRARY_PATH": str(libraries)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, DOES_NOT_APPLY}, f"{name}: {done.stdout}{done.stderr}"
    return done.returncode


def of_version(version: str) -> dict[str, str]:
    major = version.split(".")[0]
    cupti = {"11": "libcupti.so.11.8"}.get(major, f"libcupti.so.{major}")
    runtime = "libcudart.so.13" if major == "13" else "libcudart.so.12"
    return {
        "GPUTAP_TEST_CUDART": runtime,
        "GPUTAP_TEST_CUPTI": cupti,
        "SIMGPU_CUPTI_VERSION": version,
    }


@pytest.mark.parametrize("name", list(claims()))
def test_simulated(name: str, libraries: Path) -> None:
    if run(name, libraries) == DOES_NOT_APPLY:
        pytest.skip("not of this version")


@pytest.mark.parametrize("version", VERSIONS)
def test_records_of_every_version(version: str, libraries: Path) -> None:
    """The claims in which records are read, in the layout of each version."""
    for name in (
        "a_kernel_has_the_correlation_id_of_its_launch",
        "a_kernel_record_says_what_was_launched",
        "copy_records_say_kind_bytes_and_memory",
        "a_fill_record_says_value_and_bytes",
        "waiting_calls_have_synchronization_records",
        "external_ids_come_before_the_call_that_they_belong_to",
        "nodes_have_the_correlation_id_of_the_graph_launch",
        "graph_tracing_gives_one_record_for_a_launch",
        "late_attach_shows_context_and_streams_that_exist",
        "single_calls_can_be_chosen",
    ):
        run(name, libraries, **of_version(version))
