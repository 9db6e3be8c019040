"""Labels of campaigns with fewer of the elements, learnt at once: binaries seed a ternary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hullscreen.database.documents import now
from hullscreen.database.round_documents import Selected
from hullscreen.workflows.campaign import Campaign

BORROWED = "borrowed"
NO_PROTOTYPE = -1
# Of many the newest: they lie nearest to the hulls.
MOST_BORROWED = 1000


def borrowed_labels(campaign: Campaign) -> list[Selected]:
    """What campaigns of a proper part of the elements have labelled with the same DFT engine.

    Campaigns of the same elements are left out, so that one that is run again under another name
    goes the same way and asks for nothing that is not stored. So is what came later than the
    campaign itself. They are numbered from zero, in the first round.
    """
    if not campaign.settings.learning.borrow:
        return []
    store, elements = campaign.store, campaign.elements
    document = store.find_campaign()
    before = document["created_at"] if document else now()
    found: dict[str, Selected] = {}
    for other in store.earlier_campaigns(before):
        theirs = other["elements"]
        if set(theirs) < set(elements) and campaign.is_same_engine(other["engine"], theirs):
            places = np.array([elements.index(e) for e in theirs], dtype=np.int32)
            for one in store.selected_elsewhere(other["name"]):
                found[one.key] = dataclasses.replace(one, species=places[one.species])
    results = store.dft_results(list(found))
    known = [
        one
        for key, one in found.items()
        if key in results and results[key].state == "done" and results[key].created_at < before
    ]
    return [
        dataclasses.replace(
            one,
            campaign=store.name,
            round=0,
            number=i,
            purpose=BORROWED,
            structure_index=NO_PROTOTYPE,
            grade=None,
            predicted_energy_per_atom=None,
        )
        for i, one in enumerate(known[-MOST_BORROWED:])
    ]


def systems_of(labels: Sequence[Selected]) -> set[frozenset[int]]:
    """Sets of elements that occur together in a label."""
    return {frozenset(np.unique(one.species).tolist()) for one in labels}
