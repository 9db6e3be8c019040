"""Steps under way, and what was asked of them, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hullscreen.launch.going_on import going_on
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


def resumed(before: Mapping[str, Any], directory: Path) -> str:
    """Who goes on now.

    Parameters
    ----------
    before
        The campaign's document before it was resumed.
    """
    to_go_on = going_on(before, directory)
    if before.get("cancelled"):
        return f"Resumed; `{to_go_on}` starts workers."
    return f"Resumed: workers that waited go on. Where there are none, `{to_go_on}` starts some."
