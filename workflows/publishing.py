"""The hull of DFT relaxations, written into the structures' documents for whoever asks MongoDB.

No decision of a campaign reads it: it follows from the DFT results, may be written at any time and
by several at once, and writing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import DFT_RELAXED
from hullscreen.database.failures import DAMAGED
from hullscreen.database.structure_queries import HULL_FIELDS, KNOWN_FIELDS
from hullscreen.potentials.errors import CampaignError, CompositionError
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.results import HullResult, final_hull

PUBLISHED = (*KNOWN_FIELDS, *HULL_FIELDS)
# While relaxations end one after another: writing takes a second where there are thousands.
PUBLISHED_EVERY_S = 20
SYMMETRY_FIELDS = ("symbol", "number", "crystal_system")


def publish_hull(store: CampaignStore, *, if_older_s: int | None = None) -> int:
    """Write the hull of what DFT has relaxed so far into the documents, if they say otherwise.

    Before the elements are relaxed there is none; what an earlier one has said is removed.

    Parameters
    ----------
    if_older_s
        Only if the documents lag, and nobody has begun to write them for so many seconds.

    Returns
    -------
    How many documents were to be changed.
    """
    number = store.begin_publication(if_older_s=if_older_s)
    if number is None:
        return 0
    query = {"stage": 3, "final": {"$exists": True}}
    found = store.search(query, ["index", "final", *PUBLISHED], sort=["index"])
    before = {document["index"]: document for document in found}
    wanted = _wanted(store, before) if before else {}
    changed = {
        index: values
        for index, values in wanted.items()
        if any(before[index].get(name) != value for name, value in values.items())
    }
    changed |= {i: {} for i, known in before.items() if _is_published(known) and i not in wanted}
    finals = {index: before[index]["final"] for index in changed}
    store.publish(number, finals, changed, remove=PUBLISHED)
    return len(changed)


def publish_hulls_of(store: CampaignStore, keys: Sequence[str]) -> None:
    """Write the hulls of all campaigns of the database again whose relaxations have these results.

    To be called when results that campaigns share count no longer, or count again. Another campaign
    whose documents are damaged is left as it is.
    """
    for name in store.campaigns_with_final(keys):
        try:
            publish_hull(CampaignStore(store.connection, name, store.require_claim))
        except DAMAGED:
            # Commands that read the other campaign say so; this one can go on.
            if name == store.name:
                raise


def _is_published(known: Mapping[str, Any]) -> bool:
    return "is_stable" in known or known.get("energy_from") == DFT_RELAXED


def _wanted(
    store: CampaignStore, before: Mapping[int, Mapping[str, Any]]
) -> dict[int, dict[str, Any]]:
    """What the documents should say, by index."""
    try:
        result = final_hull(store)
    except (CampaignError, CompositionError):
        # There is none, or none that can be told from rounding: no reason to lose a step's DFT.
        return {}
    return {
        entry.structure_index: _fields(result, entry, before[entry.structure_index])
        for entry in result.entries
        if entry.structure_index in before
    }


def _fields(result: HullResult, entry: Entry, known: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a structure that DFT has relaxed, named as in `HullResult.document`."""
    # The relaxed geometry stays the same, so what was found of it is not asked for again.
    symmetry = known.get("symmetry") or {name: entry.symmetry[name] for name in SYMMETRY_FIELDS}
    return {
        "energy_per_atom": entry.energy_per_atom,
        "formation_energy_per_atom": entry.formation_energy_per_atom,
        "energy_above_hull": entry.energy_above_hull,
        "energy_from": DFT_RELAXED,
        "is_stable": entry.is_stable,
        "decomposes_to": None if entry.is_stable else result.decomposition(entry),
        "symmetry": symmetry,
        "volume": entry.volume,
        "density": entry.density,
    }
