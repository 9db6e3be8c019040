"""The labels of a campaign: structures that were chosen, with their DFT single points."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.documents import pack
from hullscreen.database.round_documents import LABEL_BYTES, PotentialDocument, Selected
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


def label_digest(result: DFTDocument) -> bytes:
    """What tells a label from all others, one of the same structure computed again included."""
    numbers = (stored_energy(result), stored_array(result.forces), stored_array(result.stress))
    content = b"".join([result.key.encode(), *(pack(np.asarray(one)) for one in numbers)])
    return hashlib.sha256(content).digest()[:LABEL_BYTES]


def learnt_labels(campaign: Campaign, potential: PotentialDocument) -> list[Label]:
    """The labels that a potential was fitted to, in their order, as far as they are still stored.

    Those that were put aside since are among them. Of a potential of an earlier version, which has
    not kept what it was fitted to, the labels that count now.
    """
    until = {"$lte": potential.number}
    if not potential.labels:
        return labelled_structures(campaign, round=until)
    selected = {one.key: one for one in reversed(campaign.store.selected(round=until))}
    stored = {
        label_digest(result): (selected[key], result)
        for key, result in campaign.store.dft_results(list(selected)).items()
        if result.energy is not None
    }
    learnt = [
        potential.labels[i : i + LABEL_BYTES] for i in range(0, len(potential.labels), LABEL_BYTES)
    ]
    return [stored[one] for one in learnt if one in stored]


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
