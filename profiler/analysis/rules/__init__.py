"""The rules: one question per file, thresholds in a policy, abstention where data are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gputap.profiler.analysis.facts import Facts
from gputap.profiler.analysis.model import Abstained, Finding

Rule = Callable[[Facts], Iterator[Finding | Abstained]]

RULES: Final[tuple[Rule, ...]] = ()
"""Every rule, in no order of importance."""
