"""Steps under way, in words."""

from __future__ import annotations

from collections import Counter

from hullscreen.workflows.campaign_status import Activity


def under_way(working: Activity) -> str:
    """How many steps of each kind run; those whose workers are gone do not.

    Examples
    --------
    ``2 steps are under way and will be finished (1 dft, 1 relax)``
    """
    n = len(working.alive)
    if not n:
        return "no step is under way"
    kinds = Counter(step.category for step in working.alive)
    listed = ", ".join(f"{count} {category}" for category, count in sorted(kinds.items()))
    return f"{n} {'steps are' if n > 1 else 'step is'} under way and will be finished ({listed})"
