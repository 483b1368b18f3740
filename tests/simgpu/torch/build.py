"""Builds the simcuda backend for the torch that is installed, once: `ensure()`.

Run as a program it builds and prints the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MODULES = ("libtorch_simcuda_backend.so",)


class CannotBuild(Exception):
    """There is no way to build the backend here; the text says why."""


def ensure() -> Path:
    """The folder with the built modules. Builds them if a source has changed; minutes if so.

    Several processes may ask at once: one builds, the others wait for it.

    Raises:
        CannotBuild: no compiler, no cmake, no torch, or a compile error (its end is in the text).
    """
    folder, definitions = _plan()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = folder / "built", _fingerprint(definitions)
        complete = all((folder / name).exists() for name in MODULES)
        if not (complete and stamp.exists() and stamp.read_text() == wanted):
            _build(folder, definitions)
            stamp.write_text(wanted)
    return folder


def _plan() -> tuple[Path, list[str]]:
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            raise CannotBuild(f"simcuda needs {tool}, which is not installed")
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as exc:
        raise CannotBuild(f"simcuda needs torch: {exc}") from exc
    if torch.version.cuda or torch.version.hip:
        # Its libraries are loaded first, and the simulated ones have the same names.
        raise CannotBuild(f"simcuda needs a CPU build of torch; {torch.__version__} is none")
    python = sysconfig.get_paths()["include"]
    if not (Path(python) / "Python.h").exists():
        raise CannotBuild(f"simcuda needs Python's headers, which are not in {python}")
    includes = ";".join(cpp_extension.include_paths())
    definitions = [
        f"-DTORCH_INCLUDES={includes}",
        f"-DTORCH_LIBRARIES_DIR={Path(torch.__file__).parent / 'lib'}",
        f"-DPYTHON_INCLUDE={python}",
        f"-DCXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        "-DCMAKE_BUILD_TYPE=None",
    ]
    tag = f"{torch.__version__}-{sys.implementation.cache_tag}"
    return ROOT / "build" / "simgpu-torch" / tag, definitions


def _fingerprint(definitions: list[str]) -> str:
    digest = hashlib.sha256("\n".join(definitions).encode())
    for path in [HERE / "CMakeLists.txt", *sorted((HERE / "native").iterdir())]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _build(folder: Path, definitions: list[str]) -> None:
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    # Torch's headers take some 2 GB for each compiler: one at a time.
    for command in (
        ["cmake", "-S", str(HERE), "-B", str(folder), *generator, *definitions],
        ["cmake", "--build", str(folder), "--parallel", "1"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        (folder / "build.log").write_text(done.stdout + done.stderr)
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()[-12:]
            raise CannotBuild("\n".join(["simcuda does not build:", *lines]))


if __name__ == "__main__":
    print(ensure())
