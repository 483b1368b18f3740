"""What every workload shares: options, the ready handshake, a clean stop, exact losses.

A workload is a plain training or serving script that knows nothing of gputap. It prints
`ready PID RANK` once its loop runs, ends after `--steps` steps or on SIGTERM, prints `done STEPS`,
and writes the loss of every step as an exact hexadecimal float, so that a tapped run can be
compared bit for bit with an untapped one.
"""

from __future__ import annotations

import argparse
import array
import os
import signal
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

import torch

T = TypeVar("T")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every workload takes; a workload adds its own."""
    options = argparse.ArgumentParser(description=doc)
    options.add_argument("--steps", type=int, default=0, help="0: until SIGTERM")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--losses", type=Path, help="write the loss of every step here")
    options.add_argument("--hold", action="store_true", help="say ready, begin on SIGUSR1")
    options.add_argument("--linger", action="store_true", help="after the steps, wait for SIGTERM")
    return options


def endless(loader: Iterable[T]) -> Generator[T, None, None]:
    """Epoch after epoch of `loader`."""
    while True:
        yield from loader


class Run:
    """One run of a loop: `for step in run: ...; run.record(loss)`.

    Ready is said after `warmup` steps, when one-off work (compilation, first allocations, worker
    start) is over; warm-up steps count as steps. With `together` the loop itself does not look at
    SIGTERM: the ranks of a job agree in the loop's body on when to end.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        *,
        warmup: int = 3,
        rank: int = 0,
        together: bool = False,
    ) -> None:
        self.options = options
        self.steps = 0
        self._together = together
        self._ready_said = False
        self._warmup = warmup
        self._rank = rank
        self._stopped = False
        self._begun = not options.hold
        self._losses = array.array("d")
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGUSR1, self._begin)
        torch.set_num_threads(1)
        torch.manual_seed(options.seed)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()

    def __iter__(self) -> Iterator[int]:
        if self.options.hold:
            self.say_ready()
            self._wait_until_begun()
        while not self.options.steps or self.steps < self.options.steps:
            if self.stopped and not self._together:
                break
            if self.steps == self._warmup:
                self.say_ready()
            yield self.steps
            self.steps += 1

    @property
    def stopped(self) -> bool:
        """SIGTERM has come; loops that are not `for step in run` ask here."""
        return self._stopped

    def say_ready(self) -> None:
        """One write, so that the lines of several ranks cannot mix."""
        if not self._ready_said:
            os.write(1, f"ready {os.getpid()} {self._rank}\n".encode())
        self._ready_said = True

    def record(self, loss: torch.Tensor) -> None:
        """Keep the loss. Reading it is part of the step whether or not losses are written."""
        value = loss.item()
        if self.options.losses is not None:
            self._losses.append(value)

    def finish(self) -> None:
        """Write the losses, say goodbye, linger if asked to."""
        self.say_ready()
        if self.options.losses is not None:
            text = "".join(f"{value.hex()}\n" for value in self._losses)
            self.options.losses.write_text(text)
        os.write(1, f"done {self.steps}\n".encode())
        if self.options.linger:
            self._wait_for(signal.SIGTERM)

    def _wait_until_begun(self) -> None:
        while not (self._begun or self._stopped):
            self._wait_for(signal.SIGUSR1, signal.SIGTERM)

    def _wait_for(self, *signals: signal.Signals) -> None:
        # Blocked before the flags are looked at: a signal cannot fall between the two.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        if not self._stopped and (self._begun is False or signal.SIGUSR1 not in signals):
            got = signal.sigwait(signals)
            self._begun |= got == signal.SIGUSR1
            self._stopped |= got == signal.SIGTERM
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self._begun = True
