"""The simulated NCCL against the real one, which is of use without a GPU, too: its header, its
symbols, and what it says to wrong arguments."""

from __future__ import annotations

import json
import mmap
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import simulated
from tests.simgpu import truth
from tests.simgpu.nccl.job import run
from tests.simgpu.nccl.wheel import PARTS, real_nccl

ROOT = Path(__file__).resolve().parents[2]
ABI = ROOT / "tests" / "simgpu" / "nccl" / "abi.h"
CUDA = "typedef struct CUstream_st *cudaStream_t;\n"
TYPES = {
    "nccl_result": "ncclResult_t",
    "nccl_type": "ncclDataType_t",
    "nccl_op": "ncclRedOp_t",
    "nccl_residence": "ncclScalarResidence_t",
    "nccl_comm": "ncclComm_t",
    "nccl_stream": "cudaStream_t",
    "nccl_unique_id": "ncclUniqueId",
    "nccl_config": "ncclConfig_t",
}
NUMBERS = {
    "NCCL_VERSION": "NCCL_VERSION_CODE",
    "NCCL_UNDEFINED": "NCCL_CONFIG_UNDEF_INT",
    "NCCL_SPLIT_NOCOLOR": "NCCL_SPLIT_NOCOLOR",
    "NCCL_SUCCESS": "ncclSuccess",
    "NCCL_UNHANDLED_CUDA_ERROR": "ncclUnhandledCudaError",
    "NCCL_SYSTEM_ERROR": "ncclSystemError",
    "NCCL_INTERNAL_ERROR": "ncclInternalError",
    "NCCL_INVALID_ARGUMENT": "ncclInvalidArgument",
    "NCCL_INVALID_USAGE": "ncclInvalidUsage",
    "NCCL_REMOTE_ERROR": "ncclRemoteError",
    "NCCL_IN_PROGRESS": "ncclInProgress",
    "NCCL_INT8": "ncclInt8",
    "NCCL_UINT8": "ncclUint8",
    "NCCL_INT32": "ncclInt32",
    "NCCL_UINT32": "ncclUint32",
    "NCCL_INT64": "ncclInt64",
    "NCCL_UINT64": "ncclUint64",
    "NCCL_FLOAT16": "ncclFloat16",
    "NCCL_FLOAT32": "ncclFloat32",
    "NCCL_FLOAT64": "ncclFloat64",
    "NCCL_BFLOAT16": "ncclBfloat16",
    "NCCL_FLOAT8E4M3": "ncclFloat8e4m3",
    "NCCL_FLOAT8E5M2": "ncclFloat8e5m2",
    "NCCL_TYPE_COUNT": "ncclNumTypes",
    "NCCL_SUM": "ncclSum",
    "NCCL_PROD": "ncclProd",
    "NCCL_MAX": "ncclMax",
    "NCCL_MIN": "ncclMin",
    "NCCL_AVG": "ncclAvg",
    "NCCL_OP_COUNT": "ncclNumOps",
    "NCCL_OP_LAST": "ncclMaxRedOp",
    "NCCL_SCALAR_DEVICE": "ncclScalarDevice",
    "NCCL_SCALAR_HOST": "ncclScalarHostImmediate",
}
CONFIG_FIELDS = {
    "magic": "magic",
    "version": "version",
    "blocking": "blocking",
    "net_name": "netName",
    "split_share": "splitShare",
    "comm_name": "commName",
    "nvlink_centric": "nvlinkCentricSched",
}
ASK = """
import ctypes, json, sys
nccl = ctypes.CDLL(sys.argv[1])
nccl.ncclGetErrorString.restype = ctypes.c_char_p
number = ctypes.c_int()
p = ctypes.c_void_p()
print(json.dumps({
    "messages": [nccl.ncclGetErrorString(code).decode() for code in range(10)],
    "version": [nccl.ncclGetVersion(ctypes.byref(number)), number.value],
    "no version": nccl.ncclGetVersion(None),
    "no id": nccl.ncclGetUniqueId(None),
    "no count": nccl.ncclCommCount(None, ctypes.byref(number)),
    "no rank": nccl.ncclCommUserRank(None, ctypes.byref(number)),
    "no state": nccl.ncclCommGetAsyncError(None, ctypes.byref(number)),
    "no comm": nccl.ncclAllReduce(p, p, ctypes.c_size_t(1), 7, 0, p, p),
    "no end": nccl.ncclGroupEnd(),
    "empty group": [nccl.ncclGroupStart(), nccl.ncclGroupEnd()],
    "destroy nothing": nccl.ncclCommDestroy(None),
    "abort nothing": nccl.ncclCommAbort(None),
    "finalize nothing": nccl.ncclCommFinalize(None),
}))
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    return simulated.libraries()


@pytest.fixture(scope="module")
def real() -> Path:
    """Where the wheel's header and library are."""
    return real_nccl()


def test_numbers_structures_and_prototypes_are_those_of_the_header(
    real: Path, tmp_path: Path
) -> None:
    for name in ("cuda_runtime.h", "cuda_fp16.h"):
        (tmp_path / name).write_text(CUDA if name == "cuda_runtime.h" else "")
    ours = ABI.read_text()
    prototypes = " ".join(re.findall(r"^NCCL_API ([^;]+;)", ours, re.MULTILINE))
    for own, theirs in TYPES.items():
        prototypes = re.sub(rf"\b{own}\b", theirs, prototypes)
    numbers = "".join(f"N({name}, {NUMBERS[name]})\n" for name in NUMBERS)
    fields = "".join(f"F({own}, {theirs})\n" for own, theirs in CONFIG_FIELDS.items())
    values = tmp_path / "values.h"
    values.write_text(f"{numbers}{fields}S\n")
    own_program = f"""
#include <stdio.h>
#include "{ABI}"
#define N(own, theirs) printf(#own " %lld\\n", (long long)own);
#define F(own, theirs) printf(#own " %zu\\n", offsetof(nccl_config, own));
#define S printf("config %zu id %zu\\n", sizeof(nccl_config), sizeof(nccl_unique_id));
int main(void) {{
#include "values.h"
}}
"""
    real_program = f"""
#include <stddef.h>
#include <stdio.h>
#include "{real / PARTS[0]}"
#define N(own, theirs) printf(#own " %lld\\n", (long long)theirs);
#define F(own, theirs) printf(#own " %zu\\n", offsetof(ncclConfig_t, theirs));
#define S printf("config %zu id %zu\\n", sizeof(ncclConfig_t), sizeof(ncclUniqueId));
{prototypes}
int main(void) {{
#include "values.h"
}}
"""
    outputs = []
    for name, program in (("own", own_program), ("real", real_program)):
        source = tmp_path / f"{name}.c"
        source.write_text(program)
        binary = tmp_path / name
        subprocess.run(
            ["cc", "-std=c11", f"-I{tmp_path}", "-DCUDART_VERSION=0", str(source), "-o", binary],
            check=True,
        )
        outputs.append(subprocess.run([binary], capture_output=True, text=True, check=True).stdout)
    assert prototypes.count(";") == 34
    assert outputs[0] == outputs[1]


def test_exports_are_those_of_the_library(folder: Path, real: Path) -> None:
    names = re.findall(r"^NCCL_API [^;(]*?(nccl\w+)\(", ABI.read_text(), re.MULTILINE)
    assert len(names) == 34
    for library in (folder / "libnccl.so.2", real / PARTS[1]):
        code = "import ctypes, json, sys; it = ctypes.CDLL(sys.argv[1])\n"
        code += "print(json.dumps([name for name in sys.argv[2:] if not hasattr(it, name)]))"
        done = subprocess.run(
            [sys.executable, "-c", code, str(library), *names],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == []


def test_every_kernel_is_one_of_the_library(folder: Path, real: Path, tmp_path: Path) -> None:
    for ranks in (2, 4):
        run("kernels", ranks, folder, logs=tmp_path)
        operations = truth.read(tmp_path / "0.csv")
        names = {operation.name for operation in operations if operation.kind == "kernel"}
        assert len(names) >= 8
        with (real / PARTS[1]).open("rb") as file:
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            assert [name for name in names if text.find(b"\0" + name.encode() + b"\0") < 0] == []


def test_wrong_calls_are_answered_as_by_the_library(folder: Path, real: Path) -> None:
    answers = []
    for library in (folder / "libnccl.so.2", real / PARTS[1]):
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(library)], capture_output=True, text=True, check=True
        )
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert answers[0] == answers[1]
