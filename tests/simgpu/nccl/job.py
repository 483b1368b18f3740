"""Jobs of several processes, one for each rank, for the tests of the simulated NCCL."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 100.0


class RankFailed(AssertionError):
    """A rank ended without a result, or said something else than it should."""


class Rank:
    """One process: what it says comes by `expect`."""

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=env,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines),
            threading.Thread(target=self._read_errors),
        ]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self.process.stderr
        self._errors.extend(self.process.stderr)

    def expect(self, word: str) -> str:
        """The rest of the next line, which must begin with `word`."""
        try:
            line = self._lines.get(timeout=DEADLINE_S).rstrip()
        except queue.Empty:
            raise RankFailed(f"waited {DEADLINE_S:.0f} s for {word}") from None
        if line != word and not line.startswith(word + " "):
            self.process.kill()
            self._readers[1].join(timeout=DEADLINE_S)
            raise RankFailed(f"{word} expected, {line!r} came\n" + "".join(self._errors))
        return line.removeprefix(word).lstrip()

    def poll(self) -> str | None:
        """The next line, if one comes soon."""
        try:
            line = self._lines.get(timeout=0.01)
        except queue.Empty:
            return None
        if not line:
            self._readers[1].join(timeout=DEADLINE_S)
            raise RankFailed("it ended\n" + "".join(self._errors))
        return line.rstrip()

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


class Job:
    """Ranks that run one scenario. Killed at the end of the `with`, whatever happened."""

    def __init__(
        self,
        scenario: str,
        ranks: int,
        folder: Path | None,
        *arguments: Any,
        env: Mapping[str, str] | None = None,
        logs: Path | None = None,
    ) -> None:
        """`scenario`: one of `scenarios`, or MODULE:FUNCTION. `logs`: for truth logs, RANK.csv."""
        if ":" not in scenario:
            scenario = f"tests.simgpu.nccl.scenarios:{scenario}"
        self.ranks: list[Rank] = []
        for rank in range(ranks):
            own = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
            if logs:
                own["SIMGPU_LOG"] = str(logs / f"{rank}.csv")
            module = ["-m", "tests.simgpu.nccl.rank", scenario, str(rank), str(ranks)]
            command = [sys.executable, *module, str(folder or ""), json.dumps(arguments)]
            self.ranks.append(Rank(command, own))

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for rank in self.ranks:
            rank.end()

    def share_id(self) -> None:
        """Rank 0's id goes to the others."""
        unique_id = self.ranks[0].expect("id")
        for rank in self.ranks[1:]:
            rank.tell(f"id {unique_id}")

    def relay(self) -> list[Any]:
        """What one rank says, all others hear, until each has a result."""
        results: dict[int, Any] = {}
        while len(results) < len(self.ranks):
            for number, rank in enumerate(self.ranks):
                line = None if number in results else rank.poll()
                if line and line.startswith("result "):
                    results[number] = json.loads(line.removeprefix("result "))
                elif line:
                    others = (other for other in self.ranks if other is not rank)
                    for other in others:
                        other.tell(line.replace("said ", "hear "))
        return [results[number] for number in range(len(self.ranks))]

    def results(self) -> list[Any]:
        return [json.loads(rank.expect("result")) for rank in self.ranks]


def run(
    scenario: str,
    ranks: int,
    folder: Path | None,
    *arguments: Any,
    env: Mapping[str, str] | None = None,
    logs: Path | None = None,
) -> list[Any]:
    """What each rank gives, of a scenario without handshakes."""
    with Job(scenario, ranks, folder, *arguments, env=env, logs=logs) as job:
        job.share_id()
        results = job.results()
        for rank in job.ranks:
            rank.process.wait(timeout=DEADLINE_S)
    return results
