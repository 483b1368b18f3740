"""Finding and running `gputap-inject`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final, TypeAlias

from gputap.injectors.built import INJECT, built
from gputap.profiler.errors import AttachFailed

GRACE_S: Final = 15.0
"""The helper keeps its own deadline. This is for a machine so busy that it cannot."""

Answer: TypeAlias = dict[str, object]


def binary() -> Path:
    """Path of the helper, beside the package or in the installed distribution."""
    return built(INJECT)


def run_helper(options: list[str], *, timeout_s: float) -> Answer:
    """The JSON object that the helper prints, refusals included."""
    command = [str(binary()), *options]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s + GRACE_S,
            check=False,
            start_new_session=True,  # Ctrl-C is for us; the helper ends by itself
        )
    except subprocess.TimeoutExpired as exc:
        raise AttachFailed(
            f"{INJECT} did not end within {timeout_s + GRACE_S:.0f} s and was killed."
        ) from exc
    except OSError as exc:
        raise AttachFailed(f"{INJECT} could not be run: {exc.strerror}.") from exc
    return _parse(done)


def _parse(done: subprocess.CompletedProcess[str]) -> Answer:
    try:
        answer = json.loads(done.stdout)
    except ValueError as exc:
        said = (done.stderr or done.stdout).strip() or "nothing"
        raise AttachFailed(
            f"{INJECT} ended with exit code {done.returncode} and said: {said[:200]}"
        ) from exc
    if not isinstance(answer, dict):
        raise AttachFailed(f"{INJECT} did not print an object.")
    return answer
