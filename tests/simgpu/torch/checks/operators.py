"""Operators on the device against the same on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import simcuda
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from watch import demangled, kernels, watched

Case = Callable[[Tensor, Tensor, Tensor], Any]


def _in_place(x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    base = x.clone()
    base[1].mul_(2)
    base[:, 2:4] = y[:, 2:4]
    base.t().add_(1)
    base.view(-1)[5] = 7
    return base


def _out(x: Tensor, y: Tensor, i: Tensor) -> list[Tensor]:
    empty = x.new_empty(0)
    torch.add(x, y, out=empty)
    other = torch.empty_like(x)
    torch.mul(x, y, out=other)
    values, indices = x.new_empty(0), i.new_empty(0)
    torch.max(x, 1, out=(values, indices))
    return [empty, other, values, indices]


def _resized(x: Tensor, y: Tensor, i: Tensor) -> list[Tensor]:
    small = x[:2].clone()
    kept = small.clone().resize_(1, 4)
    grown = small.clone().resize_(6, 6)[:1, :6]
    shared = torch.empty(0, dtype=x.dtype, device=x.device).set_(x)
    window = torch.empty(0, dtype=x.dtype, device=x.device)
    window.set_(x.untyped_storage(), 3, (2, 2), (1, 4))
    return [kept, grown, shared, window]


def _scattered(x: Tensor, y: Tensor, i: Tensor) -> list[Tensor]:
    columns = i % x.shape[1]
    wide = columns.unsqueeze(1).expand(-1, 3)
    put = x.clone()
    put[i % x.shape[0], columns] = 9.0
    return [
        x.scatter(1, wide, 5.0),
        x.scatter_add(1, wide, y[:, :3]),
        x.gather(1, wide),
        x.index_select(0, i % x.shape[0]),
        x.index_add(0, i % x.shape[0], y),
        put,
        torch.take_along_dim(x, wide, 1),
    ]


CASES: dict[str, Case] = {
    "arithmetic": lambda x, y, i: [
        x + y,
        x - 2,
        3 / x,
        x**2,
        x % 2,
        x // 0.5,
        -x,
        x.abs(),
        x @ y.t(),
    ],
    "functions": lambda x, y, i: [f(x) for f in (torch.exp, torch.sin, torch.tanh, torch.sigmoid)],
    "activations": lambda x, y, i: [f(x) for f in (F.relu, F.gelu, F.silu, F.softplus, F.elu)],
    "comparison": lambda x, y, i: [x > y, x == x, x.isnan(), torch.maximum(x, y), x.clamp(-1, 1)],
    "reductions": lambda x, y, i: [
        x.sum(),
        x.sum(1),
        x.mean(0),
        x.std(),
        x.var(1),
        x.prod(1),
        x.norm(),
        x.logsumexp(1),
        x.amax(0),
        x.argmin(1),
        x.any(),
        x.all(),
        x.max(1),
        x.cumsum(1),
    ],
    "sorting": lambda x, y, i: [x.sort(1), x.topk(3), x.flatten().unique(), x.median(1)],
    "selection": lambda x, y, i: [
        torch.where(x > 0, x, y),
        x.masked_fill(x > 0, 1),
        x[x > 0],
        x.nonzero(),
        x.masked_select(y > 0),
        torch.tril(x),
        x.roll(2, 1),
        x.flip(0),
    ],
    "shapes": lambda x, y, i: [
        x.t(),
        x.view(-1),
        x.reshape(2, -1),
        x[1:3, ::2],
        x.expand(2, *x.shape),
        x.unfold(1, 3, 2),
        torch.cat([x, y]),
        torch.stack([x, y]),
        x.chunk(2, 1),
        x.split(3),
        x.permute(1, 0).contiguous(),
        x.repeat(2, 1),
        F.pad(x, (1, 2)),
        x.diagonal(),
        x.unsqueeze(1).squeeze(1),
        x.movedim(0, 1),
    ],
    "types": lambda x, y, i: [
        x.to(torch.bfloat16),
        x.double(),
        x.int(),
        i.float(),
        x.half() + 1,
        x.bool(),
    ],
    "in place": _in_place,
    "out": _out,
    "resized and set": _resized,
    "scatter and gather": _scattered,
    "matrices": lambda x, y, i: [
        x @ y.t(),
        torch.addmm(y, x, y),
        torch.baddbmm(y[None], x[None], y[None]),
        torch.bmm(x.unsqueeze(0), y.t().unsqueeze(0)),
        torch.einsum("ij,kj->ik", x, y),
        torch.linalg.inv(x @ x.t() + 9 * torch.eye(x.shape[0], device=x.device)),
        x.mv(y[0]),
        torch.outer(x[0], y[0]),
    ],
    "losses": lambda x, y, i: [
        F.mse_loss(x, y),
        F.cross_entropy(x, i % x.shape[1]),
        F.l1_loss(x, y),
        F.binary_cross_entropy_with_logits(x, (y > 0).to(x.dtype)),
        F.kl_div(x, y.softmax(1)),
    ],
    "normalisation": lambda x, y, i: [
        F.layer_norm(x, x.shape[1:]),
        F.softmax(x, 0),
        F.log_softmax(x, 1),
        F.normalize(x),
        F.batch_norm(x, x.new_zeros(x.shape[1]), x.new_ones(x.shape[1]), training=True),
        F.rms_norm(x, x.shape[1:]),
    ],
    "images": lambda x, y, i: [
        F.conv2d(x.view(1, 1, *x.shape), y[:3, :3].reshape(1, 1, 3, 3), padding=1),
        F.max_pool2d(x.view(1, 1, *x.shape), 2),
        F.avg_pool2d(x.view(1, 1, *x.shape), 2),
        F.interpolate(x.view(1, 1, *x.shape), scale_factor=2.0),
        F.conv_transpose2d(x.view(1, 1, *x.shape), y[:2, :2].reshape(1, 1, 2, 2), stride=2),
        F.group_norm(x.view(1, 4, -1), 2),
    ],
    "embedding": lambda x, y, i: [
        F.embedding(i % x.shape[0], x),
        F.one_hot(i % 4),
        torch.bincount(i % 5),
    ],
    "foreach": lambda x, y, i: [
        torch._foreach_add([x, y], 1.5),
        torch._foreach_mul([x, y], [y, x]),
        torch._foreach_sqrt([x.abs()]),
        torch._foreach_norm([x, y]),
        torch._foreach_addcdiv([x], [y], [y + 9], 0.5),
    ],
    "factories": lambda x, y, i: [
        torch.zeros_like(x),
        torch.ones(3, device=x.device),
        torch.full((2,), 4.0, device=x.device),
        torch.arange(5, device=x.device),
        torch.eye(3, device=x.device),
        torch.linspace(0, 1, 5, device=x.device),
        torch.tensor([1.0, 2.0], device=x.device),
        torch.tril_indices(3, 3, device=x.device),
    ],
}


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for one in value for tensor in _flat(one)]


def _inputs(device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x, y = (torch.randn(8, 8, generator=generator) for _ in range(2))
    i = torch.randint(0, 100, (8,), generator=generator)
    return x.to(device), y.to(device), i.to(device)


def different() -> dict[str, list[int]]:
    """The cases whose results differ from the CPU's, in a bit or in where they are."""
    found = {}
    for name, case in CASES.items():
        here, there = _flat(case(*_inputs("cpu"))), _flat(case(*_inputs("simcuda")))
        assert len(here) == len(there), name
        wrong = [
            at
            for at, (a, b) in enumerate(zip(here, there, strict=True))
            if b.device.type != "simcuda"
            or a.dtype != b.dtype
            or not torch.equal(a.nan_to_num(), b.cpu().nan_to_num())
        ]
        if wrong:
            found[name] = wrong
    return found


def seeded() -> list[bool]:
    """Random numbers are the CPU's: from the default generator, and from one of the device."""
    answers = []
    for draw in (torch.rand, torch.randn):
        torch.manual_seed(3)
        here = draw(5)
        torch.manual_seed(3)
        answers.append(torch.equal(here, draw(5, device="simcuda").cpu()))
    own = torch.Generator("simcuda").manual_seed(4)
    there = torch.randn(5, device="simcuda", generator=own).cpu()
    answers.append(torch.equal(there, torch.randn(5, generator=torch.Generator().manual_seed(4))))
    torch.manual_seed(5)
    here = F.dropout(torch.ones(50), 0.5)
    torch.manual_seed(5)
    answers.append(torch.equal(here, F.dropout(torch.ones(50, device="simcuda"), 0.5).cpu()))
    return answers


def step_kernels() -> list[str]:
    """What one training step launches, in order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 8))
    model.to("simcuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=True)
    x = torch.randn(4, 16).to("simcuda")
    y = torch.randint(0, 8, (4,)).to("simcuda")
    with watched() as done:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return kernels(done)


def attention_kernels() -> dict[str, list[str]]:
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        q, k, v = (
            torch.randn(2, 4, 16, 32).to("simcuda", dtype).requires_grad_() for _ in range(3)
        )
        with watched() as done:
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
        found[str(dtype)] = [name for name in kernels(done) if "flash" in name or "fmha" in name]
    return found


def quiet() -> list[str]:
    """What views and questions launch: nothing."""
    x = torch.ones(6, 6).to("simcuda")
    with watched() as done:
        y = x.view(-1)[3:].unflatten(0, (3, 11)).t().unsqueeze(0).expand(2, -1, -1)
        y.shape, y.stride(), y.is_contiguous(), x.numel(), x.detach()
        torch.empty(5, device="simcuda")
        x.split(2), x.unbind(), x.chunk(3)
    return [o.kind for o in done]


def undemangled() -> list[str]:
    """C++ kernel names that no demangler reads."""
    operators = """add sub mul div fill gelu gelu_backward relu threshold_backward copy sum mean
        argmax _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data
        native_layer_norm
        native_layer_norm_backward nll_loss_forward nll_loss_backward mm index_select cat
        embedding_dense_backward native_dropout native_dropout_backward _fused_adamw _foreach_mul
        _foreach_add _foreach_addcmul _foreach_lerp _foreach_sqrt _foreach_norm _foreach_zero sinh
        _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward""".split()
    names = {
        name
        for op in operators
        for low in (False, True)
        for row in (64, 4096)
        for scalar in (False, True)
        for name in simcuda.backend.kernel_names(op, low, row, scalar)
    }
    return [name for name in names if name.startswith("_Z") and demangled(name) == name]


def durations() -> list[int]:
    """A matrix product of 2 x 1024^3 flops in bf16, a fill of 64 MiB, a fill of one element."""
    a = torch.ones(1024, 1024).to("simcuda", torch.bfloat16)
    large = torch.empty(1 << 24, device="simcuda")
    with watched() as done:
        a @ a
        large.fill_(1)
        large[0].fill_(2)
    return [o.end_ns - o.start_ns for o in done]


def autocast_types() -> list[str]:
    x, w = torch.randn(4, 8).to("simcuda"), torch.randn(8, 8).to("simcuda")
    with torch.autocast("simcuda", torch.bfloat16):
        return [str(t.dtype) for t in (x @ w, (x @ w).softmax(1), x + w[:4], F.linear(x, w))]


def profiled() -> list[str]:
    """The operators that a profiler sees of one call: none of those inside the CPU's kernels."""
    x = torch.randn(4, 4).to("simcuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.softmax((x @ x) + 1, 1)
    return [event.name for event in profile.events()]


def convolution() -> list[float]:
    """A small convolutional net: how far its losses are from the CPU's, over five steps."""
    losses: dict[str, list[float]] = {}
    for device in ("cpu", "simcuda"):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 3),
        ).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x, y = torch.randn(6, 1, 8, 8).to(device), torch.arange(6).remainder(3).to(device)
        losses[device] = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses[device].append(loss.item())
    return [abs(a - b) for a, b in zip(losses["cpu"], losses["simcuda"], strict=True)]
