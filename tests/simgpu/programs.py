"""Programs that run on the simulated stack, for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.simgpu import recording, truth
from tests.simgpu.build import HERE, ROOT

TIMEOUT_S = 120


class CannotCompile(Exception):
    """No nvcc, or it fails; the text says why."""


def nvcc() -> str:
    """The compiler. Raises CannotCompile."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        raise CannotCompile("no nvcc is installed")
    return found


def compile_program(folder: Path, *options: str) -> Path:
    """`program.cu`, linked with the shared runtime. Raises CannotCompile."""
    program = folder / "program"
    command = [nvcc(), "-cudart", "shared", *options]
    command += ["-o", str(program), str(HERE / "program.cu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotCompile(f"nvcc fails: {done.stderr[-500:]}")
    return program


def environment(libraries: Path, **variables: str) -> dict[str, str]:
    """Of a process on the stack."""
    return os.environ | {"LD_LIBRARY_PATH": str(libraries)} | variables


def record(
    program: Path, libraries: Path, folder: Path, *arguments: str, **variables: str
) -> tuple[recording.Recording, list[truth.Operation], str]:
    """Runs a program under the recorder: what CUPTI delivered, what was so, what it printed."""
    out, log = folder / "recording", folder / "truth.csv"
    done = subprocess.run(
        [str(program), *arguments],
        env=environment(libraries)
        | {
            "LD_PRELOAD": str(libraries / "recorder.so"),
            "RECORDER_OUT": str(out),
            "SIMGPU_LOG": str(log),
        }
        | variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = recording.read(out, soname=variables.get("RECORDER_CUPTI", ""))
    return found, truth.read(log), done.stdout


def python(code: str, libraries: Path, **variables: str) -> str:
    """Runs code in a process of its own, with a Stack as `stack`; what it printed."""
    head = "import ctypes, os, sys, threading\nfrom tests.gpu.stack import *\nstack = Stack()\n"
    tail = "\nsys.stdout.flush()\nos._exit(0)\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code + tail],
        cwd=ROOT,
        env=environment(libraries, **variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
