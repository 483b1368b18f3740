"""Runs every rule over the facts and puts what they say in order."""

from __future__ import annotations

from typing import Final

from gputap.profiler.analysis.facts import Facts
from gputap.profiler.analysis.model import Abstained, Finding
from gputap.profiler.analysis.rules import RULES

ORDER: Final = {"critical": 0, "warning": 1, "info": 2}


def judge(facts: Facts) -> tuple[tuple[Finding, ...], tuple[Abstained, ...]]:
    """Findings, most important first, and what could not be judged."""
    answers = [answer for rule in RULES for answer in rule(facts)]
    findings = [a for a in answers if isinstance(a, Finding)]
    abstained = [a for a in answers if isinstance(a, Abstained)]
    findings.sort(key=lambda f: (ORDER[f.severity], -(f.ceiling_ns or 0)))
    return tuple(findings), tuple(abstained)
