"""A report made by hand: two ranks that wait for data, 40 steps each, recorded in bursts."""

from __future__ import annotations

import random
from typing import Any

from gputap.dashboards.timeline import Bar, TimelineStep, Track
from gputap.profiler.analysis.model import (
    Abstained,
    Collective,
    Finding,
    Module,
    Operator,
    Overhead,
    Phases,
    Rank,
    Report,
    Step,
)

START_NS = 1_770_000_000_000_000_000
MS = 1_000_000
STEPS = 40
RECORDED = frozenset({4, 5, 6, 17, 18, 30})

TARGET: dict[str, Any] = {
    "command": ["python", "train.py", "--model", "vit-b16", "--batch-size", "64"],
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
    "device": "cpu",
    "cpu_count": 16,
    "torch_threads": 8,
    "dataloader": {
        "num_workers": 2,
        "pin_memory": False,
        "prefetch_factor": 2,
        "persistent_workers": False,
        "batch_size": 64,
    },
    "optimizer": {"class": "AdamW", "foreach": True, "fused": False, "param_groups": 2},
}


def step(number: int, *, start_ns: int, slow: float = 1.0, seed: int = 0) -> Step:
    """One step of about 182 ms, most of it waiting; the phases add up exactly."""
    noise = random.Random(f"{seed}/{number}")
    wait = int((100 + noise.uniform(-12, 18)) * MS * slow)
    forward = int((28 + noise.uniform(-1, 1)) * MS)
    backward = int((41 + noise.uniform(-1.5, 1.5)) * MS)
    optimizer = int((7.5 + noise.uniform(-0.3, 0.3)) * MS)
    other = int((4.2 + noise.uniform(-0.5, 0.5)) * MS)
    if number == 17:
        wait += 61 * MS
    recorded = number in RECORDED
    total = wait + forward + backward + optimizer + other
    if not recorded:
        forward, backward, other = 0, 0, other + forward + backward
    return Step(
        step=number,
        start_ns=start_ns,
        dur_ns=total,
        recorded=recorded,
        whole=number != STEPS - 1,
        boundary="optimizer",
        micro_steps=1,
        phases=Phases(wait, forward, backward, optimizer, other),
        gap_ns=wait + 6 * MS if recorded else None,
        gc_ns=400_000 if number % 7 == 0 else 0,
        collective_ns=11 * MS,
        events=5_120 if recorded else 4,
    )


def steps(seed: int, slow: float) -> tuple[Step, ...]:
    """`STEPS` steps, one after the other."""
    done: list[Step] = []
    start_ns = START_NS
    for number in range(STEPS):
        done.append(step(number, start_ns=start_ns, slow=slow, seed=seed))
        start_ns += done[-1].dur_ns
    return tuple(done)


def rank(number: int, *, slow: float = 1.0, dropped: dict[str, int] | None = None) -> Rank:
    """One process of the job."""
    made = steps(number, slow)
    recorded = [s for s in made if s.recorded and s.whole]
    total = Phases(
        *(
            sum(getattr(s.phases, name) for s in recorded)
            for name in Phases.__dataclass_fields__  # declared in the order of the constructor
        )
    )
    durations = sorted(s.dur_ns for s in made if s.whole)
    return Rank(
        rank=number,
        world_size=2,
        host="node-7",
        pid=4242 + number,
        window_ns=10_000 * MS,
        breakdown=None,
        phases=total,
        gap_ns=sum(s.gap_ns or 0 for s in recorded),
        gc_ns=sum(s.gc_ns for s in recorded),
        steps_found=STEPS,
        steps_recorded=len(recorded),
        median_step_ns=durations[len(durations) // 2],
        steps=made,
        overhead=Overhead(
            recorded_share=len(recorded) / STEPS,
            slowdown_recorded=0.021,
            slowdown_window=0.0032,
            pause_ns=310_000,
            events=30_856,
            dropped=dropped or {},
        ),
    )


def _operator(name: str, self_ms: float, count: int, module: str, source: str) -> Operator:
    kind = "autograd" if name.endswith("Backward0") else "operator"
    self_ns = int(self_ms * 12 * MS)
    return Operator(
        name=name,
        kind=kind,
        count=count * 12,
        total_ns=int(self_ns * 1.1),
        self_ns=self_ns,
        mean_ns=self_ns // (count * 12),
        share=self_ms / 187,
        top_module=module,
        top_source=source,
    )


OPERATORS = (
    _operator("aten::addmm", 18.4, 49, "encoder.layers.3.mlp.0", "models/vit.py:88 forward"),
    _operator("AddmmBackward0", 17.2, 49, "encoder.layers.3.mlp.0", "train.py:61 train_step"),
    _operator("aten::mm", 14.6, 98, "encoder.layers.7.mlp.3", "train.py:61 train_step"),
    _operator(
        "aten::native_layer_norm", 4.1, 25, "encoder.layers.0.ln_1", "models/vit.py:71 forward"
    ),
    _operator(
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        3.9,
        12,
        "encoder.layers.5.self_attention",
        "models/vit.py:64 forward",
    ),
    _operator("aten::_foreach_addcdiv_", 3.3, 1, "", "train.py:63 train_step"),
    _operator("aten::gelu", 2.7, 12, "encoder.layers.2.mlp.1", "models/vit.py:88 forward"),
    _operator("GeluBackward0", 2.4, 12, "encoder.layers.2.mlp.1", "train.py:61 train_step"),
    _operator("aten::copy_", 1.9, 214, "conv_proj", "train.py:57 train_step"),
    _operator("aten::convolution_backward", 1.2, 1, "conv_proj", "train.py:61 train_step"),
    _operator("aten::add_", 0.8, 24, "encoder.layers.1", "models/vit.py:72 forward"),
    _operator("aten::empty", 0.3, 402, "encoder.layers.1.mlp.0", "models/vit.py:88 forward"),
)


def _module(
    name: str, module_class: str, forward_ms: float, backward_ms: float, own: float
) -> Module:
    forward, backward = int(forward_ms * 12 * MS), int(backward_ms * 12 * MS)
    return Module(
        name=name,
        module_class=module_class,
        count=12,
        forward_ns=forward,
        backward_ns=backward,
        self_forward_ns=int(forward * own),
        self_backward_ns=int(backward * own),
        total_ns=forward + backward,
        share=(forward_ms + backward_ms) / 187,
    )


def _modules() -> tuple[Module, ...]:
    made = [
        _module("", "VisionTransformer", 28.0, 41.0, 0.01),
        _module("conv_proj", "Conv2d", 1.3, 1.6, 1.0),
        _module("encoder", "Encoder", 26.2, 38.9, 0.004),
    ]
    for layer in range(6):
        top = f"encoder.layers.{layer}"
        made += [
            _module(top, "EncoderBlock", 4.3, 6.4, 0.03),
            _module(f"{top}.ln_1", "LayerNorm", 0.2, 0.3, 1.0),
            _module(f"{top}.self_attention", "MultiheadAttention", 1.5, 2.2, 0.4),
            _module(f"{top}.mlp", "MLPBlock", 2.4, 3.6, 0.02),
            _module(f"{top}.mlp.0", "Linear", 1.2, 1.8, 1.0),
            _module(f"{top}.mlp.1", "GELU", 0.2, 0.3, 1.0),
            _module(f"{top}.mlp.3", "Linear", 1.0, 1.5, 1.0),
        ]
    made.append(_module("heads.head", "Linear", 0.2, 0.3, 1.0))
    return tuple(sorted(made, key=lambda m: -m.total_ns))


FINDINGS = (
    Finding(
        rule="data_wait",
        severity="critical",
        claim="The job waits for data: 113 ms of each 194 ms step (58%)",
        evidence=(
            {"data_wait_ns": 113 * MS, "step_ns": 194 * MS, "share": 0.58, "steps": 12},
            {"num_workers": 2, "cpu_count": 16, "batch_size": 64},
        ),
        ceiling_ns=113 * MS,
        advice="Raise num_workers of the DataLoader from 2 to 6 (16 CPUs are there), and set "
        "persistent_workers=True so that workers are not started again each epoch.",
    ),
    Finding(
        rule="slow_steps",
        severity="warning",
        claim="One step in 40 takes 1.3 times the median, and all of the excess is data wait",
        evidence=({"step": 17, "length_ns": 247 * MS, "median_ns": 186 * MS},),
        ceiling_ns=2 * MS,
        advice="Look at what the loader reads at that point: large files, or a shuffle buffer.",
        rank=0,
    ),
    Finding(
        rule="optimizer_not_fused",
        severity="info",
        claim="AdamW runs unfused: 7.5 ms per step in 31 operators",
        evidence=({"optimizer_ns": 7_500_000, "operators": 31},),
        ceiling_ns=5 * MS,
        advice="Pass fused=True to torch.optim.AdamW.",
    ),
)

COLLECTIVES = (
    Collective(
        "all_reduce", "gloo", "default_pg", "float32", 168, 26_214_400, 1_848 * MS, 11 * MS, 19 * MS
    ),
    Collective("broadcast", "gloo", "default_pg", "int64", 12, 8, 3 * MS, 250_000, 400_000),
)

ABSTAINED = (
    Abstained("gpu_idle", "level framework: the process uses no CUDA device"),
    Abstained("stragglers", "the clocks of the ranks were not compared in this window"),
)


def sample_report(**changes: Any) -> Report:
    """The report; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "level": "framework",
        "level_reasons": ("no CUDA driver is mapped in the target",),
        "mode": "bursts",
        "job": "vit-b16",
        "target": TARGET,
        "ranks": (rank(0), rank(1, slow=1.06)),
        "operators": OPERATORS,
        "modules": _modules(),
        "collectives": COLLECTIVES,
        "findings": FINDINGS,
        "abstained": ABSTAINED,
    }
    return Report(**(fields | changes))


def sample_timeline() -> tuple[TimelineStep, ...]:
    """Two drawn steps with about as many bars as a real one."""
    ranks = (rank(0), rank(1, slow=1.06))
    return (
        _drawn(ranks[1].steps[5], 1, "Median recorded step"),
        _drawn(ranks[0].steps[17], 0, "Slowest recorded step"),
    )


def _drawn(chosen: Step, on_rank: int, why: str) -> TimelineStep:
    bars: list[Bar] = []
    noise = random.Random(chosen.step)

    def bar(at: float, length: float, lane: int, kind: str, name: str, module: str | None) -> None:
        bars.append(
            Bar(
                start_ns=int(at * MS),
                duration_ns=int(length * MS),
                lane=lane,
                kind=kind,
                name=name,
                module=module,
                module_class="Linear" if module else None,
                source="models/vit.py:88 forward",
                events=1,
            )
        )

    wait = chosen.phases.data_wait_ns / MS
    bar(
        0,
        wait,
        0,
        "user_scope",
        "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__",
        None,
    )
    at = wait + 0.6
    for layer in range(12):
        for name, length in (("layer_norm", 0.25), ("linear", 1.0), ("gelu", 0.2), ("linear", 0.8)):
            module = f"encoder.layers.{layer}.{name}"
            bar(at, length, 0, "operator", f"aten::{name}", module)
            bar(at + 0.02, length * 0.9, 1, "operator", f"aten::native_{name}", module)
            for part in range(6):
                begin = at + 0.03 + part * length * 0.14
                bar(begin, length * 0.1 * noise.random(), 2, "operator", "aten::empty", module)
            at += length + 0.03
    back = at + 0.8
    for layer in reversed(range(12)):
        for name, length in (("Addmm", 1.4), ("Gelu", 0.4), ("Mm", 1.3)):
            module = f"encoder.layers.{layer}.mlp"
            bar(back, length, 3, "autograd", f"{name}Backward0", module)
            bar(back + 0.05, length * 0.8, 4, "operator", "aten::mm", module)
            back += length + 0.05
    bars.append(Bar(int(back * MS), 900_000, 4, "merged", "38 short events", None, None, None, 38))
    bar(
        back + 0.5,
        chosen.phases.optimizer_ns / MS,
        0,
        "user_scope",
        "Optimizer.step#AdamW.step",
        None,
    )
    bar(back + 1.1, 2.2, 1, "operator", "aten::_foreach_addcdiv_", "")
    bar(back - 3.0, 0.4, 2, "gc", "gc generation 2", None)
    bar(at + 20, 9.0, 5, "collective", "gloo:all_reduce", None)
    return TimelineStep(
        rank=on_rank,
        step=chosen.step,
        why=why,
        start_ns=chosen.start_ns,
        duration_ns=chosen.dur_ns,
        tracks=(
            Track(4242, "MainThread", 0, 3),
            Track(4260, "autograd", 3, 2),
            Track(4270, "pt_gloo_run", 5, 1),
        ),
        bars=tuple(bars),
        events=len(bars) + 37,
        merged_events=38,
        hidden_events=0,
    )
