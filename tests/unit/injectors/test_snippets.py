"""What the snippets say of a process is true, and they leave it as it was."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gputap.injectors.library import snippets
from gputap.injectors.library.snippets import source

NAMES = sorted(p.stem for p in Path(snippets.__file__).parent.glob("*.py") if p.stem != "__init__")
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")

# A process with everything that the snippets look for. Runs them on a thread, as the agent does.
TARGET = """
import gc, json, os, sys, threading
import torch, torch.nn as nn, torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)
    def forward(self, x):
        return self.head(self.body(x))

def on_thread(text):
    box = {}
    def run():
        space = {}
        exec(compile(text, "<gputap>", "exec"), space)
        box["result"] = json.loads(space["result"])
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return box["result"]

class Trainer:
    pass

def main():
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK="0", WORLD_SIZE="1", SLURM_JOB_ID="77")
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
    trainer = Trainer()
    trainer.model = nn.parallel.DistributedDataParallel(Net())
    critic = Net()
    loader = DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=2)
    optimizer = torch.optim.AdamW(trainer.model.parameters(), foreach=False)
    for (batch,) in loader:
        optimizer.zero_grad()
        trainer.model(batch).sum().backward()
        optimizer.step()
    gc.collect()
    gc.collect()
    sources = json.load(sys.stdin)
    own = {n: id(m) for n, m in trainer.model.module.named_modules()}
    own["<ddp>"] = id(trainer.model)
    own["<critic>"] = id(critic.head)
    wanted = "WANTED = " + repr(list(own.values()) + [12345])
    sources["every"] = sources["modules"].replace("EVERY = False", "EVERY = True")
    sources["modules"] = sources["modules"].replace("WANTED = []", wanted)
    state = torch.get_rng_state()
    before = (threading.active_count(), torch.is_grad_enabled(), sorted(sys.modules))
    grads = [p.grad.clone() for p in trainer.model.parameters()]
    said = {name: on_thread(text) for name, text in sources.items()}
    same = bool(torch.equal(state, torch.get_rng_state()))
    same = same and all(torch.equal(a, p.grad) for a, p in zip(grads, trainer.model.parameters()))
    after = (threading.active_count(), torch.is_grad_enabled(), sorted(sys.modules))
    print(json.dumps({"said": said, "own": own, "same": same and before == after}))

main()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("target")
    script = folder / "target.py"
    script.write_text(TARGET)
    command: list[str | Path] = [
        sys.executable,
        script,
        folder / "store",
        "--hf-token",
        "abc",
        "--api-key=xyz",
    ]
    run = subprocess.run(
        [*command, "--lr", "1e-3"],
        input=json.dumps({name: source(name) for name in NAMES}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_snippet_is_python_3_8_and_needs_nothing_of_ours(name: str) -> None:
    tree = ast.parse(source(name), feature_version=(3, 8))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported <= {
        *("binascii", "compress", "gc", "json", "os", "pickle", "sys", "threading", "time", "zlib"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_snippet_answers_without_torch_too(name: str) -> None:
    space: dict[str, Any] = {}
    code = (
        "import json, sys; s = {}; exec(compile(sys.stdin.read(), 'x', 'exec'), s);"
        "assert 'torch' not in sys.modules; print(s['result'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=source(name), capture_output=True, text=True, check=True
    )
    space = json.loads(run.stdout)
    assert isinstance(space, dict)
    assert space.get("problems", []) == []


def test_arguments_replace_defaults_and_unknown_ones_are_refused() -> None:
    assert "WANTED = [1, 2]\n" in source("modules", wanted=[1, 2])
    assert "TRAINS = True\n" in source("selftest", trains=True)
    with pytest.raises(KeyError):
        source("modules", wnated=[1])


@needs_torch
def test_the_target_is_left_as_it_was(told: dict[str, Any]) -> None:
    assert told["same"] is True


@needs_torch
def test_describe_knows_job_loader_and_optimizer(told: dict[str, Any]) -> None:
    said = told["said"]["describe"]
    assert said["problems"] == []
    assert (said["rank"], said["world_size"], said["backend"]) == (0, 1, "gloo")
    assert said["rank_source"] == "torch.distributed"
    assert said["process_groups"][0]["ranks"] == [0]
    assert said["environment"]["SLURM_JOB_ID"] == "77"
    assert said["argv"][-5:] == ["--hf-token", "***", "--api-key=***", "--lr", "1e-3"]
    assert said["torch"]["version"].startswith("2.")
    assert said["torch"]["cuda_initialized"] is False
    (loader,) = said["loaders"]
    assert (loader["num_workers"], loader["batch_size"]) == (0, 2)
    assert (loader["pin_memory"], loader["dataset"]) == (False, "TensorDataset")
    (optimizer,) = said["optimizers"]
    assert (optimizer["class"], optimizer["params"]) == ("AdamW", 4)
    assert (optimizer["foreach"], optimizer["has_state"]) == (False, True)
    names = {thread["name"] for thread in said["threads"]}
    assert "MainThread" in names
    assert said["main_tid"] == said["pid"]


@needs_torch
def test_modules_have_the_names_that_the_user_knows(told: dict[str, Any]) -> None:
    said = told["said"]["modules"]
    names = {name: said["modules"][str(address)] for name, address in told["own"].items()}
    assert said["missing"] == 1
    root = told["own"]["<ddp>"]
    assert names["<ddp>"] == ["", "DistributedDataParallel", "Net", root]
    assert names[""] == ["", "Net", "Net", root]
    assert names["body.0"] == ["body.0", "Linear", "Net", root]
    assert names["<critic>"][:3] == ["head", "Linear", "Net"]
    assert names["<critic>"][3] not in (root, told["own"]["<critic>"])


@needs_torch
def test_every_module_is_named_as_if_it_was_asked_for(told: dict[str, Any]) -> None:
    asked = told["said"]["modules"]["modules"]
    every = told["said"]["every"]["modules"]
    assert {address: every[address] for address in asked} == asked
    # The critic's body and the wrapped model's own modules, which nobody asked for.
    assert len(every) >= 11


@needs_torch
def test_the_self_test_does_what_it_says(told: dict[str, Any]) -> None:
    said = told["said"]["selftest"]
    assert said["skipped"] is None
    assert said["module"] > 0 and said["tid"] > 0
    assert isinstance(said["backward"], bool)


@needs_torch
def test_counters_hold_the_collector(told: dict[str, Any]) -> None:
    said = told["said"]["counters"]
    assert said["problems"] == []
    assert len(said["gc"]["stats"]) >= 3


@needs_torch
def test_the_flight_recorder_tells_collectives_or_why_not(told: dict[str, Any]) -> None:
    said = told["said"]["flight_recorder"]
    if not said["available"]:
        assert said["reason"]
        return
    rows = [dict(zip(said["columns"], row, strict=True)) for row in said["rows"]]
    assert any(row["profiling_name"] == "gloo:all_reduce" for row in rows)
    assert all(row["time_created_ns"] > 10**18 for row in rows)


# What a profiler of torch's is doing, seen from another thread at each point of its life.
PROFILED = """
import json, os, sys, threading
import torch
from torch.profiler import profile, schedule

def idle():
    box = {}
    def run():
        space = {}
        exec(compile(text, "<gputap>", "exec"), space)
        box["idle"] = json.loads(space["result"])["idle"]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return box["idle"]

text = sys.argv[1]
seen = {"before": idle()}
with profile():
    torch.ones(3).sum()
    seen["within"] = idle()
seen["after"] = idle()
with profile(schedule=schedule(wait=1, warmup=1, active=1, repeat=1)) as scheduled:
    for phase in ("waiting", "warming up", "active"):
        torch.ones(3).sum()
        seen[phase] = idle()
        scheduled.step()
seen["after all"] = idle()
os.environ["KINETO_USE_DAEMON"] = "1"
seen["with a daemon"] = idle()
print(json.dumps(seen))
"""


@needs_torch
def test_torchs_profiler_is_idle_only_when_nothing_of_it_is_under_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROFILED, source("profiler")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    assert {phase for phase, idle in seen.items() if idle} <= {
        "before",
        "after",
        "waiting",
        "after all",
    }
    assert seen["before"] and seen["after"] and seen["after all"]
