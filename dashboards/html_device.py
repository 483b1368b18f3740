"""The page's part on the GPUs: where their time went, and their kernels."""

from __future__ import annotations

from typing import Final

from gputap.dashboards import text, view
from gputap.dashboards.html_parts import RANKS, Cell, Head, breakable, esc, table
from gputap.profiler.analysis.model import Kernel, Memory, Report

KERNELS: Final = 150


def gpus(report: Report) -> str:
    """GPU time by rank and the kernels; empty below level `device`."""
    parts = [_by_rank(report), _memory(report), _kernels(report), _unjoined(report)]
    return "".join(part for part in parts if part)


def _by_rank(report: Report) -> str:
    ranks = [rank for rank in report.ranks if rank.breakdown][:RANKS]
    if not ranks:
        return ""
    rows = []
    for rank in ranks:
        time = rank.breakdown or {}
        total = sum(time.values()) or 1
        rows.append(
            [
                Cell(str(rank.rank), rank.rank),
                Cell(breakable(", ".join(rank.devices)), ", ".join(rank.devices)),
                *(
                    Cell(
                        f"{text.duration(time[key])}"
                        f" <small>{text.share(time[key] / total)}</small>",
                        time[key],
                        share=time[key] / total,
                    )
                    for key in view.GPU_PARTS
                ),
            ]
        )
    heads = [Head("rank"), Head("GPUs", "name")]
    heads += [Head(words, hint=_HINTS[key]) for key, words in view.GPU_PARTS.items()]
    caption = "Time of the GPUs over whole steps; of the window, where there are none"
    return table("gpu-time", caption, heads, rows)


_HINTS: Final = {
    "compute": "At least one kernel runs that is no communication",
    "exposed_comm": "Communication runs, and no compute hides it",
    "exposed_memcpy": "Copies or fills run, and no kernel hides them",
    "idle": "Nothing runs",
}


def _memory(report: Report) -> str:
    found = [(rank, memory) for rank in report.ranks[:RANKS] for memory in rank.memory]
    if not found:
        return ""
    heads = [
        Head("rank"),
        Head("device", "name"),
        Head("in tensors", hint="At the end of the last step that was looked at"),
        Head("least", hint="Of the looks at the ends of steps"),
        Head("most", hint="Of the looks at the ends of steps"),
        Head("peak", hint="At any time since the process began, or set it back"),
        Head("reserved", hint="What the allocator has from the driver"),
        Head("reserved peak"),
        Head("split, free", hint="Free, in segments that are partly used: fragmentation"),
        Head("from the driver", hint="Segments taken in the window: none in a settled loop"),
        Head("retries", hint="The driver had no more: the whole cache was given back"),
        Head("failed"),
    ]
    rows = [
        [
            Cell(str(rank.rank), rank.rank),
            Cell(breakable(memory.device), memory.device),
            *(Cell(text.size(n), n) for n in _sizes(memory)),
            *(Cell(text.count(n), n) for n in (memory.segments, memory.retries, memory.ooms)),
        ]
        for rank, memory in found
    ]
    caption = "Memory that torch's allocator holds of the GPUs, looked at between steps"
    return table("gpu-memory", caption, heads, rows)


def _sizes(memory: Memory) -> tuple[int, ...]:
    return (
        memory.allocated,
        memory.allocated_least,
        memory.allocated_most,
        memory.allocated_peak,
        memory.reserved,
        memory.reserved_peak,
        memory.inactive_split,
    )


def _kernels(report: Report) -> str:
    if not report.kernels:
        return ""
    steps = view.whole_steps(report)
    shown = report.kernels[:KERNELS]
    most = max(kernel.share for kernel in shown)
    heads = [
        Head("kernel or copy", "name"),
        Head("sort", "name"),
        Head("time", hint="On the GPU"),
        Head("share", hint="Of the time with work on the GPU"),
        Head("calls"),
        Head("mean"),
        Head("longest"),
        Head("launched by", "name", hint="Operator and module with most of its time"),
    ]
    unit = f"per step, mean of {text.plural(steps, 'whole step')}" if steps else "in the window"
    hidden = len(report.kernels) - len(shown)
    more = f"; {text.count(hidden)} more are in the capture" if hidden else ""
    caption = f"Kernels, copies and fills: time and calls {unit}{more}"
    rows = [_kernel_row(kernel, steps or 1, most) for kernel in shown]
    return table("kernels", caption, heads, rows, sorted_by=2)


def _kernel_row(kernel: Kernel, steps: int, most: float) -> list[Cell]:
    calls = kernel.count / steps
    by = "<br>".join(
        part
        for part in (
            f"<code>{breakable(kernel.top_operator)}</code>" if kernel.top_operator else "",
            f"<small>{breakable(kernel.top_module or '(root)')}</small>"
            if kernel.top_module is not None
            else "",
        )
        if part
    )
    return [
        Cell(f'<code title="{esc(kernel.full_name)}">{breakable(kernel.name)}</code>', kernel.name),
        Cell(esc(kernel.category), kernel.category),
        Cell(text.duration(kernel.total_ns / steps), kernel.total_ns),
        Cell(text.share(kernel.share), kernel.share, share=kernel.share / most if most else 0),
        Cell(text.count(round(calls)) if calls >= 10 else f"{calls:.3g}", kernel.count),
        Cell(text.duration(kernel.mean_ns), kernel.mean_ns),
        Cell(text.duration(kernel.max_ns), kernel.max_ns),
        Cell(by, kernel.top_operator or ""),
    ]


def _unjoined(report: Report) -> str:
    words = view.unjoined_words(report)
    return f"<p>{esc(words)}</p>" if words else ""
