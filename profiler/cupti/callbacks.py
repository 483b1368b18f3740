"""The CUDA calls that gputap records, by the ids that CUPTI gives them.

An id never becomes another call's (checked from 11.8 to the newest), but some are retired: 819 was
there in 13.2 only, 271 is gone in 13.5. `_ptsz` and `_ptds` are the same calls compiled for
per-thread default streams. Everything that is not here is not recorded:
the chatty calls (`cudaGetDevice`, `cudaGetLastError`, ...) cost most of what an API trace costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Domain(IntEnum):
    """`CUpti_CallbackDomain`."""

    DRIVER = 1
    RUNTIME = 2


class Group(IntEnum):
    """What a call does."""

    LAUNCH = 1
    COPY = 2
    SET = 3
    SYNC = 4
    MEMORY = 5
    GRAPH = 6


@dataclass(frozen=True, slots=True)
class Call:
    """One function of the CUDA runtime or driver."""

    domain: Domain
    cbid: int
    name: str
    group: Group


_RUNTIME: Final = {
    Group.LAUNCH: (
        "cudaLaunch=13,213 cudaLaunchKernel=211,214 cudaLaunchCooperativeKernel=269,270"
        " cudaLaunchCooperativeKernelMultiDevice=272 cudaLaunchKernelExC=430,431"
        " __cudaLaunchKernel=505,506"
    ),
    Group.COPY: (
        "cudaMemcpy=31,215 cudaMemcpy2D=32,216 cudaMemcpyToSymbol=39,223"
        " cudaMemcpyFromSymbol=40,224 cudaMemcpyAsync=41,225 cudaMemcpy2DAsync=44,228"
        " cudaMemcpyToSymbolAsync=47,231 cudaMemcpyFromSymbolAsync=48,232 cudaMemcpy3D=144,245"
        " cudaMemcpy3DAsync=145,246 cudaMemcpyPeer=160 cudaMemcpyPeerAsync=161"
        " cudaMemcpy3DPeer=162,249 cudaMemcpy3DPeerAsync=163,250"
        " cudaMemPrefetchAsync=252,253,449,450"
        " cudaMemcpyBatchAsync=482,483,509,510 cudaMemcpy3DBatchAsync=484,485,511,512"
        " cudaMemcpyWithAttributesAsync=554,555 cudaMemcpy3DWithAttributesAsync=556,557"
    ),
    Group.SET: (
        "cudaMemset=49,233 cudaMemset2D=50,234 cudaMemsetAsync=51,235 cudaMemset2DAsync=52,236"
        " cudaMemset3D=142,243 cudaMemset3DAsync=143,244"
    ),
    Group.SYNC: (
        "cudaThreadSynchronize=126 cudaStreamSynchronize=131,239 cudaEventSynchronize=137"
        " cudaDeviceSynchronize=165 cudaStreamWaitEvent=147,247"
    ),
    Group.MEMORY: (
        "cudaMalloc=20 cudaMallocPitch=21 cudaFree=22 cudaMallocHost=25 cudaFreeHost=26"
        " cudaHostAlloc=27 cudaMalloc3D=140 cudaHostRegister=152 cudaMallocManaged=206"
        " cudaMallocAsync=373,374 cudaFreeAsync=375,376 cudaMemPoolTrimTo=377"
        " cudaMallocFromPoolAsync=391,392"
    ),
    Group.GRAPH: (
        "cudaGraphLaunch=311,312 cudaGraphInstantiate=310,443 cudaGraphInstantiateWithFlags=418"
        " cudaGraphInstantiateWithParams=436,437 cudaLaunchHostFunc=284,285,550,551"
    ),
}

_DRIVER: Final = {
    Group.LAUNCH: (
        "cuLaunchKernel=307,442 cuLaunchCooperativeKernel=477,478"
        " cuLaunchCooperativeKernelMultiDevice=480 cuLaunchKernelEx=652,653"
    ),
    Group.COPY: (
        "cuMemcpy=305,408 cuMemcpyAsync=306,418 cuMemcpyPeer=318,409 cuMemcpyPeerAsync=319,426"
        " cuMemcpyHtoD=276,397 cuMemcpyHtoDAsync=277,421 cuMemcpyDtoH=278,398"
        " cuMemcpyDtoHAsync=279,422 cuMemcpyDtoD=280,399 cuMemcpyDtoDAsync=281,423"
        " cuMemcpy2D=287,405 cuMemcpy2DUnaligned=288,406 cuMemcpy2DAsync=289,424 cuMemcpy3D=290,407"
        " cuMemcpy3DAsync=291,425 cuMemPrefetchAsync=467,468,716,717"
        " cuMemcpyBatchAsync=776,777,796,797 cuMemcpy3DBatchAsync=778,779,798,799"
        " cuMemcpyWithAttributesAsync=837,838 cuMemcpy3DWithAttributesAsync=839,840"
    ),
    Group.SET: (
        "cuMemsetD8=249,411 cuMemsetD16=250,412 cuMemsetD32=251,413 cuMemsetD2D8=252,414"
        " cuMemsetD2D16=253,415 cuMemsetD2D32=254,416 cuMemsetD8Async=216,428"
        " cuMemsetD16Async=218,429 cuMemsetD32Async=220,430 cuMemsetD2D8Async=222,431"
        " cuMemsetD2D16Async=224,432 cuMemsetD2D32Async=226,433"
    ),
    Group.SYNC: (
        "cuCtxSynchronize=17,800 cuEventSynchronize=121 cuStreamSynchronize=126,440"
        " cuStreamWaitEvent=295,436"
    ),
    Group.MEMORY: (
        "cuMemAlloc=243 cuMemAllocPitch=244 cuMemFree=245 cuMemHostAlloc=39,271 cuMemAllocHost=294"
        " cuMemFreeHost=38 cuMemAllocManaged=371 cuMemHostRegister=379 cuMemAllocAsync=598,599"
        " cuMemFreeAsync=600,601 cuMemPoolTrimTo=602 cuMemAllocFromPoolAsync=611,612"
    ),
    Group.GRAPH: (
        "cuGraphLaunch=514,515 cuGraphLaunchWithArguments=819 cuGraphInstantiate=513,578"
        " cuGraphInstantiateWithFlags=643 cuGraphInstantiateWithParams=656,657"
        " cuLaunchHostFunc=527,528,831,832"
    ),
}


def _calls(domain: Domain, groups: dict[Group, str]) -> list[Call]:
    return [
        Call(domain, int(cbid), name, group)
        for group, words in groups.items()
        for name, _, ids in (word.partition("=") for word in words.split())
        for cbid in ids.split(",")
    ]


CALLS: Final = (*_calls(Domain.RUNTIME, _RUNTIME), *_calls(Domain.DRIVER, _DRIVER))

NAMES: Final = {(call.domain, call.cbid): call.name for call in CALLS}


def name_of(domain: int, cbid: int) -> str:
    """Name of a call; one that is not in the table by its number."""
    known = NAMES.get((Domain(domain), cbid)) if domain in (1, 2) else None
    return known or f"{'cuda' if domain == Domain.RUNTIME else 'cu'}#{cbid}"
