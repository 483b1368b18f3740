"""What one operator costs the target, in ns, by what is recorded of it. Prints one line of JSON.

A small-operator loop is the worst case: nearly all of its time is overhead already. Every way is
measured in every round, next to the bare loop, in CPU time of the thread, and the medians of the
differences are given: on a busy machine only paired figures mean anything. The floor is a callback
that does nothing: that part is torch's own.

    python benchmarks/op_cost.py [--rounds 31] [--loop micro|mlp|modules]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gputap.injectors.library.client import AgentClient, WindowConfig
from gputap.injectors.library.layouts import cpython
from gputap.injectors.library.layouts.torch import choose
from gputap.profiler.schema import CaptureMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.agent_target import enter  # noqa: E402

EMPTY_CALLBACK = r"""
#include <cstdint>
#include <dlfcn.h>
struct Pointer { void *p; Pointer() : p(nullptr) {} ~Pointer() {} };
struct Callback {
  Pointer (*start)(const void *);
  void (*end)(const void *, void *);
  double probability;
  bool scopes[10], inputs, outputs, ids;
};
static Pointer start(const void *) { return Pointer(); }
static void end(const void *, void *) {}
static uint64_t handle;
static void *find(const char *name) {
  return dlsym(dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD), name);
}
extern "C" void empty_add() {
  Callback c = {start, end, 1.0, {true, true, true}, false, false, false};
  c.scopes[7] = true;
  auto add = (uint64_t (*)(Callback))find("_ZN2at17addGlobalCallbackENS_22RecordFunctionCallbackE");
  handle = add(c);
}
extern "C" void empty_remove() { ((void (*)(uint64_t))find("_ZN2at14removeCallbackEm"))(handle); }
"""

CHUNK_NS = 8e6

Switch = tuple[Callable[[], None], Callable[[], None]]


def loops() -> dict[str, Callable[[], None]]:
    x = torch.zeros(4)
    zero = x.zero_

    def micro() -> None:
        for _ in range(200):
            zero()

    mlp = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizer = torch.optim.SGD(mlp.parameters(), lr=0.01)
    inputs, targets = torch.randn(8, 32), torch.randn(8, 8)

    def train() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(mlp(inputs), targets).backward()
        optimizer.step()

    deep: nn.Module = nn.Sequential(nn.ReLU(), nn.ReLU())
    for _ in range(8):
        deep = nn.Sequential(deep, nn.ReLU())

    @torch.no_grad()
    def modules() -> None:
        deep(x)

    return {"micro": micro, "mlp": train, "modules": modules}


def empty_callback(folder: Path) -> Switch | None:
    """A callback that does nothing, where there is a compiler."""
    source, library = folder / "empty.cpp", folder / "empty.so"
    source.write_text(EMPTY_CALLBACK)
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["c++", "-O2", "-w", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        made = ctypes.CDLL(str(library))
        return made.empty_add, made.empty_remove
    return None


def profiler(**options: Any) -> Switch:
    running: list[Any] = []

    def on() -> None:
        running.append(
            torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], **options)
        )
        running[-1].start()

    return on, lambda: running.pop().stop()


class Tapped:
    """gputap's own side in a thread of the same process: it only empties the rings."""

    def __init__(self) -> None:
        agent = ROOT / "injectors" / "bin" / "libgputap_agent.so"
        self.client = AgentClient(os.getpid(), enter(os.environ.get("GPUTAP_AGENT", str(agent))))
        runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
        python, _ = cpython.choose(sys.version_info[:2], lambda n: ctypes.string_at(runtime, n))
        layout, _ = choose(torch.__version__, torch._C._GLIBCXX_USE_CXX11_ABI)
        self.client.configure(layout, python)

    def window(self, mode: CaptureMode, *, stacks: bool = True, shapes: bool = False) -> Switch:
        config = WindowConfig(mode=mode, want_stacks=stacks, want_shapes=shapes, want_gc=False)
        return lambda: self.client.start(config), self.stop

    def stop(self) -> None:
        self.client.stop()
        for ring in self.client.memory.rings():
            self.client.memory.drain(ring.index)

    def events(self) -> int:
        return self.client.memory.get("events")


def time_ns(loop: Callable[[], None], repeats: int) -> float:
    loop()
    begun = time.thread_time_ns()
    for _ in range(repeats):
        loop()
    return (time.thread_time_ns() - begun) / repeats


def count_operators(loop: Callable[[], None], tapped: Tapped) -> int:
    on, off = tapped.window(CaptureMode.FULL)
    before = tapped.events()
    on()
    loop()
    off()
    return tapped.events() - before


def measure(
    loop: Callable[[], None], ways: dict[str, Switch], rounds: int
) -> tuple[float, dict[str, float]]:
    """Median ns of the bare loop, and the median of what each way adds to it."""
    repeats = max(1, int(CHUNK_NS / time_ns(loop, 20)))
    bare: list[float] = []
    added: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (on, off) in ways.items():
            before = time_ns(loop, repeats)
            on()
            during = time_ns(loop, repeats)
            off()
            after = time_ns(loop, repeats)
            bare.append((before + after) / 2)
            added[name].append(during - (before + after) / 2)
    return statistics.median(bare), {name: statistics.median(d) for name, d in added.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=31)
    options.add_argument("--loop", choices=list(loops()), action="append")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    nothing = (lambda: None, lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        tapped = Tapped()
        floor = empty_callback(Path(folder))
        ways: dict[str, Switch] = {"attached, window closed": nothing}
        if floor:
            ways["empty callback"] = floor
        ways |= {
            "always on": tapped.window(CaptureMode.ALWAYS_ON),
            "full": tapped.window(CaptureMode.FULL, stacks=False),
            "full, stacks": tapped.window(CaptureMode.FULL),
            "full, stacks, shapes": tapped.window(CaptureMode.FULL, shapes=True),
            "torch.profiler": profiler(),
            "torch.profiler, stacks": profiler(with_stack=True),
        }
        result: dict[str, Any] = {"benchmark": "op_cost", "torch": torch.__version__}
        for name, loop in loops().items():
            if arguments.loop and name not in arguments.loop:
                continue
            operators = count_operators(loop, tapped)
            bare, added = measure(loop, ways, arguments.rounds)
            result[name] = {
                "operators": operators,
                "bare_ns": round(bare),
                "added_ns_per_operator": {k: round(v / operators, 1) for k, v in added.items()},
                "added_percent": {k: round(100 * v / bare, 1) for k, v in added.items()},
            }
        tapped.client.detach()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
