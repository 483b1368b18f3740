"""CUPTI's raw records to columns and tables: rates per second of CPU time of this process.

Prints one JSON line. Chunks are as the agent makes them, 2,048 records at most. Budget: at least
ten million kernel records a second decoded on one core.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from gputap.profiler.cupti import abi, names
from gputap.profiler.cupti.abi import ActivityKind
from gputap.profiler.cupti.decode import Decoded, decode
from gputap.profiler.cupti.replay import MOST_IN_CHUNK
from gputap.profiler.cupti.tables import cuda_api_table, device_table
from gputap.profiler.cupti.walk import walk

Chunk = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32], int]

VERSIONS = ((11, 8), (12, 8), (13, 0), (13, 5))
KERNELS = 300
START_NS = 1_700_000_000_000_000_000
TRAINING = [ActivityKind.CONCURRENT_KERNEL, ActivityKind.RUNTIME] * 8 + [
    ActivityKind.MEMCPY,
    ActivityKind.MEMSET,
    ActivityKind.SYNCHRONIZATION,
    ActivityKind.DRIVER,
]
"""Roughly what a training step is made of."""


def best(run: Callable[[], object], times: int = 7) -> float:
    """CPU seconds of the fastest of some runs."""
    seconds = []
    for _ in range(times):
        before = time.process_time()
        run()
        seconds.append(time.process_time() - before)
    return min(seconds)


def chunk(kinds: Sequence[ActivityKind], version: abi.Version, first: int) -> Chunk:
    """One chunk of records of these kinds in turn, `first` numbering its first record."""
    records = [abi.BY_KIND[kinds[i % len(kinds)]] for i in range(MOST_IN_CHUNK)]
    ends = np.cumsum([record.size(version) for record in records])
    offsets = np.concatenate([[0], ends[:-1]])
    data = np.zeros(ends[-1], np.uint8)
    number = first + np.arange(MOST_IN_CHUNK)
    data.view("<u4")[offsets // 4] = [int(kinds[i % len(kinds)]) for i in range(MOST_IN_CHUNK)]
    values = {
        "start": START_NS + number * 2000,
        "end": START_NS + number * 2000 + 1500,
        "name": 1 + number % (KERNELS - 1),
        "streamId": 7 + number % 4,
        "correlationId": number,
        "cbid": np.full(MOST_IN_CHUNK, 211),
        "threadId": 4242 + number % 2,
    }
    for i in range(MOST_IN_CHUNK):
        for field in records[i].fields:
            if field.name in values:
                at = int(offsets[i]) + field.offset
                data[at : at + int(field.type[2:])].view(field.type)[0] = values[field.name][i]
    return data, offsets.astype(np.uint32), version[0] * 100 + version[1]


def chunks(kinds: Sequence[ActivityKind], version: abi.Version, count: int) -> list[Chunk]:
    """Enough chunks for so many records; each has its own memory, as in the ring."""
    made = [chunk(kinds, version, i * MOST_IN_CHUNK) for i in range(4)]
    copies = range(max(count // MOST_IN_CHUNK, 1))
    return [(made[i % 4][0].copy(), made[i % 4][1], made[i % 4][2]) for i in copies]


def rate(kinds: Sequence[ActivityKind], version: abi.Version, count: int) -> int:
    """Records decoded per second, into memory that was used before."""
    made = chunks(kinds, version, count)

    def run() -> None:
        for one in made:
            decode(*one)

    return round(len(made) * MOST_IN_CHUNK / best(run))


def kept_rate(kinds: Sequence[ActivityKind], version: abi.Version, count: int) -> int:
    """Records decoded per second when all are kept: most of that is fresh memory."""
    made = chunks(kinds, version, count)
    return round(len(made) * MOST_IN_CHUNK / best(lambda: [decode(*one) for one in made]))


def decoded(kinds: Sequence[ActivityKind], count: int) -> list[Decoded]:
    return [decode(*one) for one in chunks(kinds, (13, 0), count)]


def mangled(number: int) -> str:
    """Names like those of PyTorch's elementwise kernels."""
    functor = f"at6native7op_{number:05}"
    inner = f"N2{functor[:2]}6native8op_{number:05}IfEE"
    return f"_ZN2at6native29vectorized_elementwise_kernelILi4E{inner}St5arrayIPcLm3EEEEviT0_T1_"


def describe_all(texts: Sequence[str]) -> None:
    """What a new name costs once."""
    names.describe.cache_clear()
    for text in texts:
        names.describe(text)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    kernels, step = decoded([ActivityKind.CONCURRENT_KERNEL], count), decoded(TRAINING, count)
    texts = ["", *(mangled(i) for i in range(KERNELS))]
    rows = sum(len(part.kernels) for part in kernels)
    calls = sum(len(part.api_calls) for part in step)
    device_s = best(lambda: device_table(kernels, texts, lambda times: times), 5)
    calls_s = best(lambda: cuda_api_table(step, lambda times: times), 5)
    buffer, _, version = chunk(TRAINING, (13, 0), 0)
    print(
        json.dumps(
            {
                "benchmark": "cupti_decode",
                "records": rows,
                "kernel_records_per_s": {
                    f"{v[0]}.{v[1]}": rate([ActivityKind.CONCURRENT_KERNEL], v, count)
                    for v in VERSIONS
                },
                "kept_kernel_records_per_s": kept_rate(
                    [ActivityKind.CONCURRENT_KERNEL], (13, 0), count
                ),
                "training_records_per_s": rate(TRAINING, (13, 0), count),
                "api_records_per_s": rate([ActivityKind.RUNTIME], (13, 0), count),
                "device_rows_per_s": round(rows / device_s),
                "cuda_api_rows_per_s": round(calls / calls_s),
                "walked_records_per_s": round(MOST_IN_CHUNK / best(lambda: walk(buffer, version))),
                "new_name_us": round(best(lambda: describe_all(texts)) / len(texts) * 1e6, 1),
                "python": platform.python_version(),
                "numpy": np.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
