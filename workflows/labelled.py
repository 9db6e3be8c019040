"""The labels of a campaign: structures that were chosen, with their DFT single points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.round_documents import Selected
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.fit import TrainingSet
from hullscreen.potentials.structures import FloatArray, join
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.dft_jobs import atoms_of, forces_for, stored_array, stored_energy

Label: TypeAlias = tuple[Selected, DFTDocument]


def labelled_structures(
    campaign: Campaign, *, judged_again_by: str = "", **query: object
) -> list[Label]:
    """Selected structures whose DFT single point is done, and that result; each content once.

    Parameters
    ----------
    judged_again_by
        The round whose judgement is repeated: what it has quarantined belongs to what it judges,
        so that its verdicts are the same if it was interrupted while it noted them.
    """
    selected = campaign.store.selected(**query)
    results = campaign.store.dft_results([one.key for one in selected])
    unique = {one.key: one for one in reversed(selected)}
    return [
        (one, results[one.key])
        for one in selected
        if unique[one.key] is one
        and one.key in results
        and _counts(results[one.key], judged_again_by)
    ]


def _counts(result: DFTDocument, judged_again_by: str) -> bool:
    if result.state == "done":
        return True
    return bool(judged_again_by) and result.judged_by == judged_again_by


def training_set_of(campaign: Campaign, labels: Sequence[Label]) -> TrainingSet:
    """Labels as arrays.

    Raises
    ------
    CampaignError
        There are none, or a pure element is missing.
    """
    missing = [
        element
        for k, element in enumerate(campaign.elements)
        if not any((selected.species == k).all() for selected, _ in labels)
    ]
    if missing:
        left_out = [*campaign.store.failed_dft(), *campaign.store.quarantined_here()]
        raise CampaignError(
            f"DFT gave no energy of pure {', '.join(missing)}, or none that can be used, so "
            "nothing can be fitted; the first failure: "
            f"{left_out[0].reason if left_out else 'none is recorded'}; mend it and run again "
            "(`hullscreen labels` lists what failed or is quarantined)"
        )
    return TrainingSet(
        join((s.geometry.cell, s.geometry.positions, s.species) for s, _ in labels),
        np.array([stored_energy(result) for _, result in labels]),
        np.concatenate([_forces(campaign, selected, result) for selected, result in labels]),
        np.array([stored_array(result.stress) for _, result in labels]),
    )


def _forces(campaign: Campaign, selected: Selected, result: DFTDocument) -> FloatArray:
    geometry = selected.geometry
    atoms = atoms_of(geometry.cell, geometry.positions, selected.species, campaign.elements)
    return forces_for(atoms, result)
