"""Runs one check in this process and prints its result as JSON: `child.py MODULE FUNCTION [ARG...]`.

Checks need a process of their own: simcuda renames a device type of torch for good. With RANK in the
environment the process is a rank of a job.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "workloads"), str(HERE.parents[3])]


def main() -> None:
    module, function, *arguments = sys.argv[1:]
    check = getattr(importlib.import_module(module), function)
    result = check(*map(json.loads, arguments))
    print("result", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
