"""The rules: one question per function, thresholds in a policy, abstention where data are missing.

A rule takes the facts and yields findings and abstentions; an empty answer means that it looked
and found nothing. Add a rule to `RULES`, its thresholds to its policy, and its row to
docs/report.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gputap.profiler.analysis.facts import Facts
from gputap.profiler.analysis.model import Abstained, Finding
from gputap.profiler.analysis.rules.capture_quality import (
    looking_costs,
    lossy_capture,
    no_device_level,
    time_goes,
)
from gputap.profiler.analysis.rules.gpu import (
    exposed_communication,
    exposed_memcpy,
    gpu_idle,
    small_kernels,
    sync_stalls,
    tensor_cores,
)
from gputap.profiler.analysis.rules.host_bound import (
    data_copies,
    python_bound,
    small_operators,
    sync_calls,
)
from gputap.profiler.analysis.rules.hot import hot_module, hot_operator, optimizer_heavy
from gputap.profiler.analysis.rules.input_bound import input_bound
from gputap.profiler.analysis.rules.memory import alloc_retries, memory_creep
from gputap.profiler.analysis.rules.pauses import gc_pauses, recompiles, step_jitter
from gputap.profiler.analysis.rules.ranks import exposed_collectives, rank_imbalance, straggler

Rule = Callable[[Facts], Iterator[Finding | Abstained]]

RULES: Final[tuple[Rule, ...]] = (
    input_bound,
    straggler,
    exposed_collectives,
    rank_imbalance,
    gpu_idle,
    exposed_communication,
    exposed_memcpy,
    small_kernels,
    sync_stalls,
    tensor_cores,
    alloc_retries,
    memory_creep,
    python_bound,
    optimizer_heavy,
    gc_pauses,
    recompiles,
    step_jitter,
    sync_calls,
    data_copies,
    hot_operator,
    hot_module,
    small_operators,
    lossy_capture,
    looking_costs,
    time_goes,
    no_device_level,
)
"""Every rule. Where severity and ceiling are equal, findings keep this order."""
