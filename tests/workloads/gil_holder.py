"""Holds the GIL in a C loop for `--seconds`, then takes one training step, and so on.

`--spin` burns CPU inside the loop, otherwise it sleeps there; both keep the GIL (ctypes.PyDLL).
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile

import torch
from common import Run, parser
from torch import nn

SOURCE = """
#include <time.h>
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
void hold(double seconds, int spin) {
  const double until = now() + seconds;
  const struct timespec nap = {0, 1000000};
  volatile unsigned long work = 0;
  while (now() < until) {
    if (!spin) nanosleep(&nap, 0);
    else for (int i = 0; i < 100000; i++) work += i;
  }
}
"""


def build() -> ctypes.PyDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/hold.so"
        command = ["cc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
        subprocess.run(command, input=SOURCE.encode(), check=True)
        holder = ctypes.PyDLL(library)
    holder.hold.argtypes = [ctypes.c_double, ctypes.c_int]
    holder.hold.restype = None
    return holder


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--spin", action="store_true")
    with Run(options.parse_args(), warmup=0) as run:
        holder = build()
        model = nn.Linear(32, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in run:
            holder.hold(run.options.seconds, run.options.spin)
            optimizer.zero_grad()
            loss = model(torch.randn(8, 32)).square().mean()
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
