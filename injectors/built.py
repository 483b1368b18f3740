"""Where the native parts of gputap are: beside the package, or in the installed distribution."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from gputap.profiler.errors import AttachFailed

INJECT: Final = "gputap-inject"
AGENT: Final = "libgputap_agent.so"


def expected() -> tuple[Path, ...]:
    """Every native part at the place where it is, or should be."""
    return tuple(_place(name) for name in (INJECT, AGENT))


def built(name: str) -> Path:
    """Path of one native part. Raises AttachFailed if it was not built."""
    path = _place(name)
    if path.is_file():
        return path
    raise AttachFailed(
        f"{name} is not built for this machine: there is no {path}.",
        hint="In a checkout run `make build`; else install the wheel for Linux on x86-64.",
    )


def _place(name: str) -> Path:
    beside = Path(__file__).resolve().parent / "bin" / name
    if beside.is_file():
        return beside
    # An editable install keeps sources and built files in different folders.
    installed = resources.files("gputap.injectors") / "bin" / name
    return installed if isinstance(installed, Path) and installed.is_file() else beside
