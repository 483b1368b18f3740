"""How many ranks a collective has, and which of them this one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gputap.profiler.analysis.recorder import Entry
    from gputap.profiler.manifest import RankManifest

UNKNOWN: Final = (None, None)


@dataclass(frozen=True, slots=True)
class Groups:
    """The process groups of one rank, as torch.distributed has them."""

    world_size: int | None = None
    rank: int | None = None
    named: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    """Size, and this rank's place in it, by the name that the flight recorder uses, too."""

    def of(self, entry: Entry | None) -> tuple[int | None, int | None]:
        """Size and place for a collective; of the one group there is where nothing tells."""
        if entry is not None and entry.name_in_torch in self.named:
            return self.named[entry.name_in_torch]
        # With several groups a collective may be of any.
        return (self.world_size, self.rank) if len(self.named) <= 1 else UNKNOWN


def groups_of(manifest: RankManifest) -> Groups:
    """What a rank's target told of its process groups; what makes no sense is left out."""
    told = manifest.target.get("process_groups")
    rank = manifest.rank if manifest.world_size is not None else None
    named = dict(_named(group, rank) for group in told or () if _is_group(group))
    return Groups(manifest.world_size, rank, named)


def _is_group(group: Any) -> bool:
    return (
        isinstance(group, Mapping)
        and isinstance(group.get("name"), str)
        and type(group.get("size")) is int
        and group["size"] > 0
        and isinstance(group.get("ranks"), list)
    )


def _named(group: Mapping[str, Any], rank: int | None) -> tuple[str, tuple[int, int | None]]:
    ranks = group["ranks"]
    # A long list is cut by the target.
    place = ranks.index(rank) if rank in ranks else None
    return group["name"], (group["size"], place)
