"""A snapshot of torch's allocator as PyTorch's memory viewer opens it: pickled, packed, as text.

With RECORD_S the allocator's history is recorded for so long first. That is ended here as well, by
the same run, so that it ends whatever becomes of gputap; one that is the job's own is left alone.
"""

import binascii
import json
import pickle
import sys
import time
import zlib

RECORD_S = 0
ENTRIES = 100000
LIMIT_BYTES = 30000000


def device():
    """Device type and its module of torch; None while there is no allocator."""
    torch = sys.modules.get("torch")
    cuda = sys.modules.get("torch.cuda")
    if cuda is not None and cuda.is_initialized():
        return "cuda", cuda
    version = getattr(torch, "version", None)
    if getattr(version, "cuda", None) or getattr(version, "hip", None):
        return None  # asking for the accelerator would start the driver
    other = sys.modules.get("torch.accelerator")
    if other is None or not other.is_available():
        return None
    if not torch._C._accelerator_isAllocatorInitialized():
        return None
    kind = str(other.current_accelerator().type)
    return kind, getattr(torch, kind, None)


def recorded(kind):
    """Whether a history is being recorded; None where torch does not say."""
    asked = getattr(sys.modules["torch"]._C, "_%s_isHistoryEnabled" % kind, None)
    return bool(asked()) if asked is not None else None


def record(memory):
    memory._record_memory_history("all", context="all", stacks="python", max_entries=ENTRIES)
    time.sleep(RECORD_S)


def totals(snapshot):
    segments = snapshot.get("segments", [])
    return {
        "segments": len(segments),
        "reserved": sum(s.get("total_size", 0) for s in segments),
        "allocated": sum(s.get("allocated_size", 0) for s in segments),
        "events": sum(len(t) for t in snapshot.get("device_traces", [])),
    }


def run():
    found = device()
    memory = getattr(found[1], "memory", None) if found else None
    if memory is None or not hasattr(memory, "_snapshot"):
        return {"problem": "torch has no memory of a device that it gives snapshots of"}
    kind = found[0]
    before = recorded(kind)
    if RECORD_S and before is None:
        return {"problem": "this torch does not say whether the job records a history itself"}
    ours = RECORD_S and not before
    try:
        if ours:
            record(memory)
        elif RECORD_S:
            time.sleep(RECORD_S)
        began = time.monotonic()
        snapshot = memory._snapshot()
    finally:
        if ours:
            memory._record_memory_history(None)
    said = {"device": kind, "history": "ours" if ours else "the job's" if before else "none"}
    said.update(totals(snapshot))
    raw = pickle.dumps(snapshot, protocol=4)
    snapshot = None
    said["bytes"] = len(raw)
    said["standstill_s"] = time.monotonic() - began
    packed = zlib.compress(raw, 1)
    raw = None
    said["packed_bytes"] = len(packed)
    if len(packed) * 4 // 3 < LIMIT_BYTES:
        said["data"] = binascii.b2a_base64(packed, newline=False).decode()
    return said


try:
    result = json.dumps(run())
except Exception as error:
    result = json.dumps({"problem": "%s: %s" % (type(error).__name__, str(error)[:300])})
