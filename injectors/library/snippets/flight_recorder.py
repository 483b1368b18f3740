"""Collectives from torch's own flight recorder, which is on by default, as compact JSON rows.

NCCL: state, created, started, completed times. Gloo (torch 2.13, seen): created time, sizes, group,
sequence numbers; started and completed stay empty and the state stays `scheduled`.
"""

import json
import sys

SINCE_UNIX_NS = 0
LIMIT_BYTES = 60000

COLUMNS = (
    "process_group collective_seq_id p2p_seq_id op_id profiling_name state is_p2p input_sizes "
    "input_dtypes output_sizes output_dtypes time_created_ns time_discovered_started_ns "
    "time_discovered_completed_ns duration_ms thread_id"
).split()


def dump(c10d):
    """The recorder's own answer: JSON where it can, else the pickle of plain values."""
    for name in ("_dump_fr_trace_json", "_dump_nccl_trace_json"):
        function = getattr(c10d, name, None)
        if function is not None:
            yield name, json.loads(function(includeCollectives=True, onlyActive=False))
    import pickle

    for name in ("_dump_fr_trace", "_dump_nccl_trace"):
        function = getattr(c10d, name, None)
        if function is not None:
            yield name, pickle.loads(function(True, False, False))


def run():
    said = {"available": False, "columns": COLUMNS, "rows": [], "left_out": 0}
    c10d = sys.modules.get("torch._C._distributed_c10d")
    distributed = sys.modules.get("torch.distributed.distributed_c10d")
    if c10d is None or distributed is None or not distributed.is_initialized():
        said["reason"] = "torch.distributed is not initialised"
        return json.dumps(said)
    entries, empty = [], 0
    for name, answer in dump(c10d):
        entries = answer.get("entries") or []
        said["source"] = name
        said["version"] = answer.get("version")
        said["groups"] = answer.get("pg_config")
        said["status"] = answer.get("pg_status")
        if entries:
            break
        empty += 1
    if not entries:
        said["reason"] = "the recorder is off or has seen nothing" if empty else "no recorder"
        return json.dumps(said)
    said["available"] = True
    rows, size = [], len(json.dumps(said)) + 100
    for entry in reversed(entries):
        if (entry.get("time_created_ns") or 0) < SINCE_UNIX_NS:
            continue
        row = [entry.get(column) for column in COLUMNS]
        size += len(json.dumps(row)) + 2
        if size > LIMIT_BYTES:
            said["left_out"] += 1
            continue
        rows.append(row)
    said["rows"] = rows[::-1]
    return json.dumps(said)


try:
    result = run()
except Exception as error:
    result = json.dumps(
        {"available": False, "rows": [], "reason": "%s: %s" % (type(error).__name__, error)}
    )
