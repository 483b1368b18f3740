"""Steps of real torch loops, exactly as many as were run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gputap.profiler.analysis.load import RankData
from gputap.profiler.analysis.phases import StepPhases, step_phases
from gputap.profiler.analysis.steps import Cuts, cut_steps
from gputap.profiler.analysis.track import BACKWARD
from tests.analysis_cases import Tape, record

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def judged(data: RankData) -> tuple[Cuts, StepPhases]:
    cuts, thread = cut_steps(data)
    phases = step_phases(thread, cuts)
    parts = (
        phases.data_wait_ns,
        phases.forward_ns,
        phases.backward_ns,
        phases.optimizer_ns,
        phases.other_ns,
    )
    assert np.array_equal(sum(parts), cuts.end - cuts.start)
    assert all(np.all(p >= 0) for p in parts)
    return cuts, phases


def watched(body: Callable[[], Any], *models: Any) -> tuple[Cuts, StepPhases]:
    return judged(record(body, *models).data())


def mlp() -> Any:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def loader(size: int, batch: int = 4, **more: Any) -> Any:
    data = torch.utils.data.TensorDataset(torch.randn(size, 8))
    return torch.utils.data.DataLoader(data, batch, **more)


def train(model: Any, optimizer: Any, x: Any) -> None:
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()


# -------------------------------------------------------------------------------- training


def test_plain_training_loop() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def body() -> None:
        for _ in range(6):
            train(model, optimizer, torch.randn(4, 8))

    cuts, phases = watched(body, model)
    assert (cuts.boundary, int(cuts.whole.sum()), len(cuts)) == ("optimizer", 6, 6)
    assert phases.micro_steps.tolist() == [1] * 6
    assert np.all(phases.forward_ns > 0)
    assert np.all(phases.backward_ns > 0)
    assert np.all(phases.optimizer_ns > 0)


@pytest.mark.parametrize("with_loader", [False, True])
def test_gradient_accumulation_makes_no_more_steps(with_loader: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def body() -> None:
        batches = loader(96) if with_loader else ([torch.randn(4, 8)] for _ in range(24))
        for i, (x,) in enumerate(batches):
            model(x).sum().backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()

    cuts, phases = watched(body, model)
    assert (int(cuts.whole.sum()), len(cuts)) == (6, 6)
    assert phases.micro_steps.tolist() == [4] * 6


def test_two_optimizers_of_one_class_make_one_step() -> None:
    maker, judge = nn.Linear(4, 8), nn.Linear(8, 1)
    first = torch.optim.Adam(judge.parameters())
    second = torch.optim.Adam(maker.parameters())

    def body() -> None:
        for _ in range(5):
            first.zero_grad()
            judge(maker(torch.randn(4, 4)).detach()).mean().backward()
            first.step()
            second.zero_grad()
            judge(maker(torch.randn(4, 4))).mean().backward()
            second.step()

    cuts, phases = watched(body, maker, judge)
    assert (int(cuts.whole.sum()), len(cuts)) == (5, 5)
    assert phases.micro_steps.tolist() == [2] * 5


def test_optimizers_stepped_in_an_inner_loop_make_one_step() -> None:
    maker, judge = nn.Linear(4, 8), nn.Linear(8, 1)
    both = [torch.optim.SGD(m.parameters(), 0.1) for m in (maker, judge)]

    def body() -> None:
        for _ in range(5):
            judge(maker(torch.randn(4, 4))).mean().backward()
            for optimizer in both:
                optimizer.step()

    cuts, phases = watched(body, maker, judge)
    assert (int(cuts.whole.sum()), len(cuts)) == (5, 5)
    assert phases.micro_steps.tolist() == [1] * 5


def test_closure_gives_its_passes_to_forward_and_backward() -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    x = torch.randn(4, 8)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(x).pow(2).sum()
        loss.backward()
        return loss

    def body() -> None:
        for _ in range(4):
            optimizer.step(closure)

    cuts, phases = watched(body, model)
    assert (int(cuts.whole.sum()), len(cuts)) == (4, 4)
    assert np.all(phases.forward_ns > 0)
    assert np.all(phases.backward_ns > 0)
    assert np.all(phases.optimizer_ns > 0)
    assert np.all(phases.micro_steps >= 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_of_a_loader(workers: int) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def body() -> None:
        for _ in range(2):
            for (x,) in loader(12, num_workers=workers):
                train(model, optimizer, x)

    cuts, phases = watched(body, model)
    assert (int(cuts.whole.sum()), len(cuts)) == (6, 6)
    assert np.all(phases.data_wait_ns > 0)


def test_evaluation_between_steps_is_no_step_and_in_none() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    evaluated: list[int] = []

    def body() -> None:
        held_out = loader(20)
        for i, (x,) in enumerate(loader(48)):
            train(model, optimizer, x)
            if i % 4 == 3:
                with torch.no_grad():
                    evaluated.extend(model(y).sum().item() > 0 for (y,) in held_out)

    tape = record(body, model)
    cuts, _ = judged(tape.data())
    assert len(evaluated) == 15
    assert int(cuts.whole.sum()) == 12
    between = cuts.start[1:12] - cuts.end[:11]
    assert np.flatnonzero(between > 0).tolist() == [3, 7]


def test_evaluation_is_told_apart_though_training_has_no_loader() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def body() -> None:
        held_out = loader(20)
        for i in range(12):
            train(model, optimizer, torch.randn(4, 8))
            if i % 4 == 3:
                with torch.no_grad():
                    for (y,) in held_out:
                        model(y)

    cuts, phases = watched(body, model)
    assert int(cuts.whole.sum()) == 12
    assert phases.data_wait_ns[cuts.whole].sum() == 0


def test_logging_after_the_step_does_not_hide_that_the_first_is_whole() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())

    def body() -> None:
        torch.randn(3)
        for _ in range(5):
            x = torch.randn(4, 8)
            optimizer.zero_grad()
            loss = model(x).sum()
            loss.backward()
            optimizer.step()
            loss.item()

    tape = record(body, model)
    cuts, _ = judged(tape.data())
    assert cuts.whole.tolist() == [True] * 5 + [False] * (len(cuts) - 5)
    late = min(r["start_ns"] for r in tape.rows if r["name"].startswith(BACKWARD))
    partial = Tape([r for r in tape.rows if r["start_ns"] > late], tape.stack_ids, tape.main_tid)
    assert judged(partial.data())[0].whole.tolist()[:5] == [False] + [True] * 4


def test_compiled_model_keeps_its_steps() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    compiled = torch.compile(model, backend="aot_eager")
    train(compiled, optimizer, torch.randn(4, 8))

    def body() -> None:
        for _ in range(4):
            train(compiled, optimizer, torch.randn(4, 8))

    cuts, phases = watched(body, model)
    assert (int(cuts.whole.sum()), len(cuts)) == (4, 4)
    assert np.all(phases.forward_ns > 0)
    assert np.all(phases.backward_ns > 0)


# ------------------------------------------------------------------------------- inference


def test_inference_over_a_loader_counts_batches_not_ends_of_epochs() -> None:
    model = mlp()

    def body() -> None:
        with torch.no_grad():
            for _ in range(2):
                for (x,) in loader(20):
                    model(x)

    cuts, _ = watched(body, model)
    assert (cuts.boundary, int(cuts.whole.sum()), len(cuts)) == ("loader", 10, 10)


class Recurrent(nn.Module):
    """Loops over one cell, with something before and after, or nothing."""

    def __init__(self, before: bool, after: bool) -> None:
        super().__init__()
        self.before = nn.Linear(8, 8) if before else None
        self.cell = nn.RNNCell(8, 8)
        self.after = nn.Linear(8, 4) if after else None

    def forward(self, x: Any) -> Any:
        if self.before is not None:
            x = self.before(x)
        h = x
        for _ in range(5):
            h = self.cell(x, h)
        if self.after is not None:
            h = self.after(h)
        return h


class Stack(nn.Module):
    """Two lines per turn over lists of modules, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(4))
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Any) -> Any:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            y = norm(x)
            x = layer(y)
        return x


def encoder() -> Any:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (mlp(), (2, 8)),
        (nn.Linear(8, 8), (2, 8)),
        (nn.Sequential(mlp(), nn.Linear(2, 8), mlp()), (2, 8)),
        (encoder(), (2, 4, 8)),
        (Stack(), (2, 8)),
        (Recurrent(before=True, after=True), (2, 8)),
        (Recurrent(before=True, after=False), (2, 8)),
        (Recurrent(before=False, after=True), (2, 8)),
    ],
    ids=["mlp", "leaf", "nested", "encoder", "lists", "rnn", "rnn-before", "rnn-after"],
)
@pytest.mark.parametrize("between", [False, True])
def test_calls_of_the_outermost_module(model: Any, shape: Any, between: bool) -> None:
    x = torch.randn(*shape)

    def body() -> None:
        with torch.no_grad():
            for _ in range(7):
                y = model(x)
                if between:
                    y.argmax()

    cuts, phases = watched(body, model)
    assert (cuts.boundary, int(cuts.whole.sum()), len(cuts)) == ("module", 7, 7)
    assert np.all(phases.forward_ns > 0)


def test_a_loop_that_is_all_of_forward_needs_operators_between_the_calls() -> None:
    model = Recurrent(before=False, after=False)
    x = torch.randn(2, 8)

    def body() -> None:
        with torch.no_grad():
            for _ in range(6):
                model(x).sum()

    cuts, _ = watched(body, model)
    assert (int(cuts.whole.sum()), len(cuts)) == (6, 6)


def test_every_token_is_a_step() -> None:
    model = nn.Sequential(nn.Embedding(10, 8), encoder(), nn.Linear(8, 10)).eval()

    def body() -> None:
        with torch.no_grad():
            for _ in range(2):
                ids = torch.zeros(1, 1, dtype=torch.long)
                for _ in range(5):
                    ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], 1)

    cuts, _ = watched(body, model)
    assert (int(cuts.whole.sum()), len(cuts)) == (10, 10)


def test_a_loop_without_modules_is_found_by_its_lines() -> None:
    x, w = torch.randn(2, 8), torch.randn(8, 8)

    def body() -> None:
        for _ in range(6):
            y = torch.matmul(x, w)
            y = torch.relu(y)
            torch.sum(y)

    cuts, _ = watched(body)
    assert (cuts.boundary, int(cuts.whole.sum()), len(cuts)) == ("iteration", 6, 6)


# ---------------------------------------------------------------------------------- bursts


def only_bursts(tape: Tape, bursts: list[tuple[int, int]]) -> Tape:
    """What is left of a tape if operators are recorded in some intervals only."""
    kept = [
        r
        for r in tape.rows
        if r["kind"] == "user_scope" or any(lo <= r["start_ns"] < hi for lo, hi in bursts)
    ]
    return Tape(kept, tape.stack_ids, tape.main_tid)


def test_steps_are_recorded_where_the_bursts_were() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def body() -> None:
        for (x,) in loader(80):
            train(model, optimizer, x)

    tape = record(body, model)
    full, _ = judged(tape.data())
    ends = full.end
    bursts = [(int(ends[2]), int(ends[5])), (int(ends[9]), int(ends[10]))]
    cuts, phases = judged(only_bursts(tape, bursts).data(mode="bursts", scopes_seen_ns=1 << 62))
    assert np.array_equal(cuts.end, ends)
    assert np.flatnonzero(cuts.recorded).tolist() == [3, 4, 5, 10]
    assert int(cuts.whole.sum()) == 20
    assert np.all(phases.gap_ns[~cuts.recorded] == -1)
    assert np.all(phases.forward_ns[~cuts.recorded] == 0)
    assert np.all(phases.optimizer_ns > 0)


def test_slices_of_an_inference_loop_give_the_calls_inside_them() -> None:
    model = mlp()
    x = torch.randn(4, 8)

    def body() -> None:
        with torch.no_grad():
            for _ in range(60):
                model(x)

    tape = record(body, model)
    full, _ = judged(tape.data())
    assert len(full) == 60
    middle = (full.start + full.end) // 2
    bursts = [(int(middle[4]), int(middle[9])), (int(middle[30]), int(middle[37]))]
    sliced = only_bursts(tape, bursts)
    for row in sliced.rows:  # off-times are long
        row["start_ns"] += 50_000_000 * (row["start_ns"] >= bursts[1][0])
    cuts, _ = judged(sliced.data(mode="bursts", bursts=3))
    whole = cuts.start[cuts.whole]
    late = full.start[31:38] + 50_000_000
    assert set(whole.tolist()) <= {*full.start[5:10].tolist(), *late.tolist()}
    assert len(whole) >= 5 + 7 - 4
    assert np.all((cuts.end - cuts.start)[cuts.whole] < 50_000_000)
