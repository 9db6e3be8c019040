"""DFT results of a campaign as a person sees them: listed, released, removed to be computed again.

What is changed by hand counts when everything is screened once more, which the next run does.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from pymatgen.core import Composition

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.potentials.errors import CampaignError, InputError
from hullscreen.workflows.publishing import publish_hulls_of

# Of a key; shorter ones could name many results.
SHORTEST_PREFIX = 6
SET_ASIDE = "set-aside"


def dft_results_of(store: CampaignStore) -> list[DFTDocument]:
    """Results that the campaign asked for, failures included, in the order of their rounds."""
    keys = list(dict.fromkeys([*store.selected_keys(), *store.final_keys()]))
    found = store.dft_results(keys)
    asked = [found[key] for key in keys if key in found]
    failed = [result for result in store.failed_dft() if result.key not in found]
    return [*asked, *failed]


def label_row(result: DFTDocument) -> dict[str, Any]:
    """One result as plain JSON."""
    n_atoms = len(result.numbers)
    return {
        "key": result.key,
        "formula_pretty": _formula(result),
        "nsites": n_atoms,
        "structure_index": result.structure_index,
        "kind": result.kind,
        "purpose": result.purpose,
        "campaign": result.campaign,
        "energy_per_atom": None if result.energy is None else result.energy / n_atoms,
        "state": result.state,
        "judged": result.judged,
        "judged_by": result.judged_by,
        "corrections": list(result.corrections),
        "reason": result.reason,
        "last_updated": result.created_at.isoformat(),
    }


def quarantined_rows(store: CampaignStore) -> list[dict[str, Any]]:
    """What is quarantined of all that the campaign asked for, as `label_row` writes it."""
    keys = list(dict.fromkeys([*store.selected_keys(), *store.final_keys()]))
    return [label_row(result) for result in store.quarantined_dft(keys).values()]


def find_result(store: CampaignStore, key: str) -> DFTDocument:
    """A result of the campaign by its key or the first letters of it.

    Raises
    ------
    InputError
        No result or several begin like this.
    """
    if len(key) < SHORTEST_PREFIX:
        raise InputError(
            f"expected at least {SHORTEST_PREFIX} letters of a key, got {key!r}; `hullscreen "
            "labels` lists them"
        )
    found = [result for result in dft_results_of(store) if result.key.startswith(key)]
    if len(found) != 1:
        raise InputError(
            f"{len(found) or 'no'} DFT results of campaign {store.name!r} have a key that begins "
            f"with {key!r}, where one was expected; `hullscreen labels` lists them"
        )
    return found[0]


def release(store: CampaignStore, key: str) -> DFTDocument:
    """Let a quarantined result count; no judgement will put it aside again.

    Raises
    ------
    InputError
        There is none, or it is not quarantined.
    """
    result = find_result(store, key)
    if result.state != "quarantined":
        raise InputError(
            f"the DFT result {result.key[:12]} is {result.state}, and only what is quarantined can "
            "be released; --recompute computes one again"
        )
    # Noted first: whatever happens in between, the next run learns once more.
    _note_change(store)
    store.release_dft(result.key)
    publish_hulls_of(store, [result.key])
    return result


def recompute(store: CampaignStore, key: str) -> DFTDocument:
    """Remove a result so that the next run computes it again; its files are set aside.

    Raises
    ------
    InputError
        There is none.
    CampaignError
        The campaign is not finished, so workers may be at it.
    """
    result = find_result(store, key)
    campaign = store.campaign()
    if not campaign["finished"] and result.state == "done":
        raise CampaignError(
            f"campaign {store.name!r} is not finished, and a result that is done may be in use; "
            "let `hullscreen run` come to its end, then ask for this again"
        )
    # Noted first: whatever happens in between, the next run looks for what is missing.
    _note_change(store)
    _set_aside(Path(campaign["directory"]) / result.key[:2] / result.key)
    store.remove_dft(result)
    publish_hulls_of(store, [result.key])
    return result


def _formula(result: DFTDocument) -> str:
    symbols = Counter(chemical_symbols[number] for number in result.numbers)
    return str(Composition(symbols).reduced_formula)


def _note_change(store: CampaignStore) -> None:
    store.set_campaign(labels_changed=int(store.campaign().get("labels_changed", 0)) + 1)


def _set_aside(folder: Path) -> None:
    """Rename a calculation's folder: it begins afresh, and what went wrong can still be read."""
    if not folder.is_dir():
        return
    number = 1
    while (kept := folder.with_name(f"{folder.name}.{SET_ASIDE}-{number}")).exists():
        number += 1
    folder.rename(kept)
