"""What a picture shows of a campaign's hull."""

from __future__ import annotations

import numpy as np

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.launch.hull_pictures import HullPicture
from hullscreen.workflows.results import HullResult, screened_background


def campaign_picture(store: CampaignStore, result: HullResult) -> HullPicture:
    """The hull with all that DFT has relaxed, and what screening dropped near it behind that."""
    background = screened_background(store, result)
    # One of several phases that are stable and equal carries the label.
    shown = {entry.structure_index for entry in result.stable}
    title = f"{'–'.join(result.elements)}, {result.engine}"
    return HullPicture(
        elements=result.elements,
        fractions=result.hull.fractions,
        formation_energies=result.hull.formation_energies,
        labels=[entry.formula_pretty for entry in result.entries],
        is_stable=np.array([entry.structure_index in shown for entry in result.entries]),
        energy_above_hull=result.hull.energies_above_hull,
        method=result.engine,
        title=title if result.finished else f"{title}, provisional",
        background=background if len(background[1]) else None,
    )
