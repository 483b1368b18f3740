"""Puts the figures of build/bench.json (and build/soak/*.json) into the documents.

    python benchmarks/tables.py

What lies between `<!-- figures: NAME -->` and `<!-- end -->` in docs/overhead.md and
docs/performance.md is written anew; the rest is left alone. A figure that is missing or failed
leaves its old table.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "docs" / "overhead.md", ROOT / "docs" / "performance.md"]
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Figures = dict[str, Any]
Found = dict[str, list[Figures]]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def met(value: float, most: float) -> str:
    """Whether a figure stays within its budget."""
    return "met" if value <= most else "**not met**"


def quartiles(figure: Figures, digits: int = 1) -> str:
    """`median (q1 to q3)`."""
    middle, low, high = (f"{figure[key]:,.{digits}f}" for key in ("median", "q1", "q3"))
    return f"{middle} ({low} to {high})"


def when(figures: Sequence[Figures]) -> str:
    """Where and under which load a table's figures were taken."""
    one = figures[-1]["where"]
    load = "/".join(map(str, one["load"]))
    return (
        f"\n{one['date'][:16].replace('T', ' ')} UTC, {one['cpu']}, {one['cpus']} vCPUs, OS kernel"
        f" {one['os_kernel']}, Python {one['python']}, torch {one['torch']}; load average over 1, 5"
        f" and 15 minutes at the end: {load}.\n"
    )


# ------------------------------------------------------------------------------- docs/overhead.md


def steps(found: Found) -> str:
    """What a mode costs a step."""
    out = ""
    for one in found["overhead"]:
        rows = [
            (
                mode,
                quartiles(f["us_per_step"], 2),
                quartiles(f["percent"], 2),
                f"{f['ns_per_event']:,.0f}",
                f"{f['wall_percent']['median']:,.1f}",
            )
            for mode, f in one["modes"].items()
        ]
        bare = quartiles(one["bare_step_us"]["cpu"])
        out += (
            f"`{one['workload']}`: {bare} us of CPU time a step without gputap,"
            f" {one['events_per_step']:,.1f} RecordFunctions a step.\n\n"
        )
        head = ("mode", "us a step", "% of the step", "ns per RecordFunction", "% in wall time")
        out += table(head, rows) + "\n"
    return out + when(found["overhead"])


def operators(found: Found) -> str:
    """What one operator costs."""
    one = found["op_cost"][-1]
    loops = [key for key, value in one.items() if isinstance(value, dict) and "bare_ns" in value]
    modes = one[loops[0]]["added_ns_per_operator"]
    rows = [
        (mode, *(f"{one[loop]['added_ns_per_operator'].get(mode, 0):,.0f}" for loop in loops))
        for mode in modes
    ]
    return table(("ns per operator", *loops), rows) + when([one])


def budget(found: Found) -> str:
    """Whether bursts keep to 1 %."""
    rows = [
        (
            f"`{one['workload']}`",
            quartiles(one["slowdown_percent"], 2),
            quartiles(one["wall_slowdown_percent"], 2),
            quartiles(one["recorded_steps_percent"], 2),
            quartiles(one["recorded_percent_of_window"], 2),
            f"{one['steps_recorded']['median']:,.0f}",
            met(one["slowdown_percent"]["median"], one["budget_percent"]),
        )
        for one in found["budget"]
    ]
    head = ["workload", "slowdown, % CPU", "% wall", "% by recorded steps"]
    head += ["% of the window recorded", "steps recorded", "1 %"]
    return table(head, rows) + when(found["budget"])


def pauses(found: Found) -> str:
    """How long the target stops."""

    def row(one: Figures) -> tuple[object, ...]:
        pause, stops = one["pause_ms"], one["stops"]
        return (
            one["workload"],
            pause["count"],
            *(f"{pause[key]:,.2f}" for key in ("p50", "p90", "p99", "max")),
            f"{stops['p50']:.0f} / {stops['max']:.0f}",
            f"{one['injector_ms']['p50']:,.1f}",
            f"{one['attach_ms']['p50']:,.0f}" if "attach_ms" in one else "-",
            f"{one['prepare_ms']['p50']:,.0f}" if "prepare_ms" in one else "-",
        )

    head = ["target", "attaches", "p50 ms", "p90", "p99", "max", "stops p50 / max"]
    head += ["injector ms", "attach ms", "self-test ms"]
    return table(head, [row(one) for one in found["pause"]]) + when(found["pause"])


def overhead_budgets(found: Found) -> str:
    """Budget by budget."""
    rows: list[tuple[object, ...]] = []
    for one in found["pause"]:
        for key, most in (("p50", 0.5), ("p99", 10.0)):
            value = one["pause_ms"][key]
            what = f"pause, {one['workload']}, {key}"
            rows.append((what, f"<= {most} ms", f"{value:.2f} ms", met(value, most)))
    for loop, f in found["op_cost"][-1].items():
        if isinstance(f, dict) and "empty callback" in f.get("added_ns_per_operator", {}):
            ns = f["added_ns_per_operator"]
            over = ns["full, stacks"] - ns["empty callback"]
            ratio = ns["torch.profiler"] / max(ns["full, stacks"], 1e-9)
            what = f"operator with stack and module over the floor, `{loop}`"
            rows.append((what, "<= 60 ns", f"{over:,.0f} ns", met(over, 60)))
            what = f"the same against torch.profiler, `{loop}`"
            rows.append((what, ">= 2x cheaper", f"{ratio:.1f}x", met(2, ratio)))
    for one in found["overhead"]:
        modes, name = one["modes"], one["workload"]
        value = modes["always on"]["us_per_step"]["median"]
        rows.append((f"always on, `{name}`", "<= 3 us a step", f"{value:.2f} us", met(value, 3)))
        closed = modes["attached, window closed"]["percent"]
        verdict = met(closed["median"], 0.1)
        if closed["q1"] <= 0 <= closed["q3"]:
            verdict = "met: not measurable"
        what = f"attached, window closed, `{name}`"
        rows.append((what, "< 0.1 %", quartiles(closed, 2) + " %", verdict))
    for one in found["budget"]:
        value = one["slowdown_percent"]["median"]
        what = f"bursts, `{one['workload']}`, CPU time"
        rows.append((what, "<= 1 %", f"{value:.2f} %", met(value, 1.0)))
        value = one["recorded_steps_percent"]["median"]
        what = f"bursts, `{one['workload']}`, by the recorded steps"
        rows.append((what, "<= 1 %", f"{value:.2f} %", met(value, 1.0)))
    return table(("what", "budget", "measured", ""), rows)


def soaks(found: Found) -> str:
    """The long proofs, as they wrote themselves down; those on the simulated GPU are told apart."""
    cells = []
    for one in (soak for soak in found["soak"] if not soak.get("simulated")):
        told = "; ".join(f"{_words(k)} {_short(v)}" for k, v in one.items() if k != "soak")
        cells.append((f"`{one['soak']}`", told))
    return table(("proof", "figures"), cells)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(k)} {_short(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return "/".join(map(str, value))
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# ---------------------------------------------------------------------------- docs/performance.md


def collector(found: Found) -> str:
    """gputap's own cost."""
    one = found["ingest"][-1]
    rate, size, rss = one["events_per_s"], one["bytes_per_event"], one["rss_mb"]
    rows: list[tuple[object, ...]] = [
        ("ring to Parquet, one core", ">= 3 M events/s", f"{rate / 1e6:.2f} M/s", met(3e6, rate)),
        ("on disk", "<= 8 B/event", f"{size:.2f} B", met(size, 8)),
        ("memory of the collector, peak", "<= 150 MB", f"{rss:.0f} MB", met(rss, 150)),
    ]
    for live in found["rss"]:
        peak = live["window_rss_mb"]["peak"]
        what = f"`gputap attach` on `{live['workload']}`, {live['mode']},"
        what += f" {live['events_per_s']:,} events/s, peak in the window"
        rows.append((what, "<= 150 MB", f"{peak:.0f} MB", met(peak, 150)))
    return table(("what", "budget", "measured", ""), rows) + when([one])


def live(found: Found) -> str:
    """The command line while it captures."""
    rows = [
        (
            f"`{one['workload']}`, {one['mode']}",
            f"{one['events_per_s']:,}",
            sum(one["dropped"].values()),
            f"{one['bytes_per_event']:.2f}",
            f"{one['window_rss_mb']['at_a_quarter']:.0f} / {one['window_rss_mb']['at_the_end']:.0f}"
            f" / {one['window_rss_mb']['peak']:.0f}",
            f"{one['window_rss_mb']['of_it_rings']:.0f}",
            f"{one['window_cpu_percent']:.0f}",
            f"{one['analysis']['seconds']:.1f} s, {one['analysis']['peak_mb']:.0f} MB",
        )
        for one in found["rss"]
    ]
    head = ["target, mode", "events/s", "dropped", "B/event"]
    head += ["MB at a quarter / end / peak", "of it rings", "% of one core", "analysis after it"]
    return table(head, rows) + when(found["rss"])


def readers(found: Found) -> str:
    """Analysis and exports."""
    rows: list[tuple[object, ...]] = []
    for one in found["analysis"]:
        best, peak = min(one["s"]) * 1e6 / one["rows"], one["peak_mb"]
        what = "analysis of 1 M events from Parquet"
        rows.append((what, "<= 1.5 s", f"{best:.2f} s", met(best, 1.5)))
        rows.append(("its memory, peak", "<= 500 MB", f"{peak:.0f} MB", met(peak, 500)))
    for one in found["otlp_encode"]:
        rate = next(v for k, v in one.items() if k.endswith("spans_per_s"))
        what = "OTLP encoding, one core"
        rows.append((what, ">= 1 M spans/s", f"{rate / 1e6:.2f} M/s", met(1e6, rate)))
    for one in found["exports"]:
        rate = one["events_per_s"]
        rows.append((f"`{one['benchmark']}`", "-", f"{rate / 1e6:.2f} M events/s", ""))
    return table(("what", "budget", "measured", ""), rows) + when(found["analysis"])


TABLES: dict[str, Callable[[Found], str]] = {
    "steps": steps,
    "operators": operators,
    "budget": budget,
    "pauses": pauses,
    "overhead_budgets": overhead_budgets,
    "soaks": soaks,
    "collector": collector,
    "live": live,
    "readers": readers,
}


def read() -> Found:
    """All figures by benchmark."""
    found: Found = {}
    paths = [ROOT / "build" / "bench.json", *sorted((ROOT / "build" / "soak").glob("*.json"))]
    for path in filter(Path.exists, paths):
        for line in path.read_text().splitlines():
            one = json.loads(line)
            name = "soak" if "soak" in one else one["benchmark"]
            name = "exports" if name.startswith("export_") else name
            if "failed" not in one:
                found.setdefault(name, []).append(one)
    return found


def main() -> int:
    found, missing = read(), 0
    for document in DOCUMENTS:

        def written(match: re.Match[str]) -> str:
            nonlocal missing
            try:
                return match[1] + "\n" + TABLES[match[2]](found) + "\n" + match[3]
            except KeyError as exc:
                sys.stderr.write(f"{match[2]}: no figures of {exc}; left as it was\n")
                missing += 1
                return match[0]

        document.write_text(BLOCK.sub(written, document.read_text()))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
