"""Every way to call a function, with the stacks that the interpreter itself saw.

Each place that runs `aten::frac` notes its stack, on the same line, in the file `--stacks`: a JSON
list of [path of the innermost module or null, [[function, file, line], ...]], innermost first.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import Run, parser
from torch import Tensor, nn

SEEN: set[str] = set()
ONE = torch.ones(1)


def note(module: str | None) -> None:
    stack, frame = [], sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        stack.append([name, code.co_filename, frame.f_lineno])
        frame = frame.f_back  # type: ignore[assignment]
    SEEN.add(json.dumps([module, stack]))


def probe(module: str | None = None) -> Tensor:
    return (note(module), torch.frac(ONE))[1]


def größe_度() -> Tensor:
    return probe()


def decorated(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrapper(*arguments: Any, **named: Any) -> Tensor:
        return function(
            *arguments,
            **named,
        )

    return wrapper


@decorated
def closure(depth: int) -> Tensor:
    def inner(left: int) -> Tensor:
        if left:
            return inner(left - 1)
        return probe()

    return inner(depth)


def generator() -> Iterator[Tensor]:
    yield probe()

    yield from (probe() for _ in range(2))


class Thing:
    def __init__(self) -> None:
        probe()

    def method(self) -> Tensor:
        return [probe() for _ in range(2)][-1]

    @property
    def attribute(self) -> Tensor:
        return (lambda: probe())()

    def __call__(self) -> Tensor:
        try:
            raise ValueError
        except ValueError:
            return probe()
        finally:
            probe()


async def coroutine() -> Tensor:
    return await awaited()


async def awaited() -> Tensor:
    return probe()


def by_builtins() -> None:
    list(map(lambda _: probe(), range(2)))  # noqa: C417
    sorted([2, 1], key=lambda _: float(probe()))


# Code longer than one-byte jumps and line steps reach.
LONG = "def long():\n" + "    x = 1\n" * 400 + "    return probe()\n"
JUMP = "def jump():\n    return (\n" + "\n" * 300 + "        probe()\n    )\n"


class Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x + probe("inner.gradient")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient + probe()


class Leaf(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x + probe(self.path)


class WithGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Gradient.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gradient = Leaf("inner.first"), WithGradient()
        self.layers = nn.ModuleList([Leaf(f"inner.layers.{i}") for i in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.gradient(self.first(x))
        for layer in self.layers:
            x = layer(x)
        return x + probe("inner")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + probe("")  # type: ignore[no-any-return]


def everything(model: Model, executed: dict[str, Any]) -> None:
    probe()
    größe_度()
    closure(3)
    for _ in generator():
        pass
    thing = Thing()
    thing.method()
    thing.attribute  # noqa: B018
    thing()
    try:
        coroutine().send(None)
    except StopIteration:
        pass
    by_builtins()
    executed["long"]()
    executed["jump"]()
    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    model(torch.ones(1, requires_grad=True)).sum().backward()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stacks", type=Path, required=True)
    with Run(options.parse_args()) as run:
        model = Model()
        optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
        executed: dict[str, Any] = {"probe": probe}
        exec(compile(LONG, "<long>", "exec"), executed)
        exec(compile(JUMP, "<jump>", "exec"), executed)
        for _ in run:
            everything(model, executed)
            optimizer.step()
            run.record(ONE)
        run.options.stacks.write_text("[" + ",".join(sorted(SEEN)) + "]")


if __name__ == "__main__":
    main()
