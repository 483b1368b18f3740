"""Finds and loads the native parts: the simulated CUDA libraries, then the backend on them."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType

import torch  # noqa: F401  the modules below are bound to its libraries

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
CUPTI = {"12": "libcupti.so.12", "13": "libcupti.so.13"}


def libraries() -> Path:
    """The folder of the look-alike CUDA libraries."""
    return Path(os.environ.get("SIMGPU_LIBRARIES", ROOT / "build" / "simgpu"))


def load_global(name: str, *, required: bool = True) -> ctypes.CDLL | None:
    """Load one look-alike; its symbols are there for every module that is loaded later."""
    path = libraries() / name
    if not path.exists():
        if required:
            raise ImportError(
                f"{path} is missing: build the simulated stack, or set SIMGPU_LIBRARIES"
            )
        return None
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


@cache
def _folder() -> Path:
    given = os.environ.get("SIMCUDA_MODULES")
    if given:
        return Path(given)
    spec = importlib.util.spec_from_file_location("simcuda_build", HERE.parent / "build.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return Path(build.ensure())


def module(name: str) -> ModuleType:
    """A native module of ours."""
    path = str(_folder() / f"libtorch_{name}.so")
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded)
    return loaded


@cache
def backend() -> ModuleType:
    """The backend, with the CUDA libraries beneath it as real PyTorch has them mapped."""
    version = os.environ.get("SIMGPU_CUDA", "13")
    load_global(f"libcudart.so.{version}")
    load_global("libcuda.so.1", required=False)
    load_global("libnccl.so.2", required=False)
    if os.environ.get("SIMCUDA_CUPTI") != "0":
        load_global(CUPTI[version], required=False)
    return module("simcuda_backend")
