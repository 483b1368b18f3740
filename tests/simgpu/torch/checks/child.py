"""Runs checks, each in a fork of this process, which has loaded torch and simcuda.

A check needs its own process because simcuda renames a device type of torch for good, and because
statistics and logs begin with the process. Nothing here calls CUDA before the fork: a device that
was initialised before is of no use after it.

Reads requests, one JSON object a line: `module`, `function`, `arguments`, `env`, `answer` (a file
for the result as JSON), `errors` (a file for stderr). Writes `ANSWER STATUS` when a check has
ended.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "workloads"), str(HERE.parents[3])]

import collectives  # noqa: E402, F401
import device  # noqa: E402, F401
import operators  # noqa: E402, F401
import torch  # noqa: E402

_PR_SET_PDEATHSIG = 1


def _run(request: dict[str, Any]) -> int:
    """In the fork."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(os.open(request["errors"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), 2)
    os.dup2(2, 1)  # the pipe of the answers is not for us
    os.environ.update(request["env"])
    torch.set_num_threads(1)
    try:
        check = getattr(importlib.import_module(request["module"]), request["function"])
        Path(request["answer"]).write_text(json.dumps(check(*request["arguments"])))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _start(request: dict[str, Any], running: dict[int, tuple[int, str]]) -> None:
    ended, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = _run(request)
        sys.stderr.flush()
        # No finalisation: autograd's threads do not survive it (see native/finish.h).
        os._exit(status)
    os.close(held)
    running[ended] = (pid, request["answer"])


def main() -> None:
    running: dict[int, tuple[int, str]] = {}
    requests = sys.stdin.fileno()
    buffer = b""
    while True:
        ready, _, _ = select.select([requests, *running], [], [])
        for ended in set(ready) - {requests}:
            os.close(ended)
            pid, answer = running.pop(ended)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(answer, status, flush=True)
        if requests in ready:
            data = os.read(requests, 1 << 16)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                _start(json.loads(line), running)


if __name__ == "__main__":
    main()
