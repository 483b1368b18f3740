"""Builds the simulated CUDA stack, once: `ensure()`.

Run as a program it builds and prints the folder of the libraries.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class CannotBuild(Exception):
    """There is no way to build the stack here; the text says why."""


def ensure(sanitize: str = "") -> Path:
    """The folder of the libraries, up to date. `sanitize`: e.g. "address,undefined".

    Several processes may ask at once: one builds, the others wait for it.

    Raises:
        CannotBuild: no compiler, no cmake, or a compile error (its end is in the text).
    """
    for tool in ("cmake", "cc"):
        if shutil.which(tool) is None:
            raise CannotBuild(f"the simulated CUDA stack needs {tool}, which is not installed")
    name = "simgpu" + ("-" + sanitize.replace(",", "-") if sanitize else "")
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "CMakeCache.txt").exists():
            generator = ["-G", "Ninja"] if shutil.which("ninja") else []
            option = f"-DSIMGPU_SANITIZE={sanitize}"
            _run(folder, ["cmake", "-S", str(HERE), "-B", str(folder), *generator, option])
        _run(folder, ["cmake", "--build", str(folder), "--parallel", "2"])
    return folder


def _run(folder: Path, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (folder / "build.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-12:]
        raise CannotBuild("\n".join(["the simulated CUDA stack does not build:", *lines]))


if __name__ == "__main__":
    print(ensure())
