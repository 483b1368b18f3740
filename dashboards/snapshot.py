"""What is said of a memory snapshot on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gputap.dashboards import text


def snapshot_lines(taken: Mapping[str, Any]) -> list[str]:
    """What is in it, what it cost, how to look at it. `taken`: fields of a `Snapshot`."""
    file = text.clean(taken["path"])
    whose = {"ours": "recorded for it", "the job's": "that the job records itself"}
    history = f", {text.plural(taken['events'], 'event')} of the history" if taken["events"] else ""
    if history and taken["history"] in whose:
        history += f" ({whose[taken['history']]})"
    return [
        f"{text.clean(taken['device'])}: {text.size(taken['allocated'])} allocated of"
        f" {text.size(taken['reserved'])} in {text.plural(taken['segments'], 'segment')}{history}",
        f"Python in the target stood still for {text.duration(taken['standstill_s'] * 1e9)}",
        f"{text.size(taken['bytes'])} written; open it at https://pytorch.org/memory_viz, or by"
        f" `python -m torch.cuda._memory_viz segment_plot {file} -o memory.html`",
    ]
