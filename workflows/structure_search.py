"""Looking for structures of a campaign, with what the potential and what DFT said about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymatgen.core import Composition

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.results import HullResult

# Whose energy a height above the hull is, by the stage that dropped the structure.
HEIGHT_SOURCES = {1: "MTP of screen 1", 2: "MTP of screen 2", 3: "DFT single point"}
DFT_RELAXED = "DFT, relaxed"
STAGES = {1: "screen 1", 2: "screen 2", 3: "final"}
FIELDS = [
    "index",
    "prototype",
    "formula_pretty",
    "counts",
    "nsites",
    "stage",
    "relaxed.stage",
    "relaxed.potential",
    "relaxed.outcome",
    "relaxed.energy_per_atom",
    "dropped",
    "final",
]


@dataclass(frozen=True)
class Wanted:
    """Which structures are looked for; what is None does not matter.

    Attributes
    ----------
    formula
        Any formula of the composition; compared after reduction.
    structure_index
        Place in the pool.
    max_energy_above_hull
        In eV/atom; structures whose height is not known do not match.
    stage
        The stage that was reached: 1, 2, 3 (final).
    stable_only
        Only what is on the hull of DFT energies.
    """

    formula: str | None = None
    structure_index: int | None = None
    max_energy_above_hull: float | None = None
    stage: int | None = None
    stable_only: bool = False


@dataclass(frozen=True)
class Found:
    """What a search found: rows as plain JSON, and how many there are without the limit."""

    rows: list[dict[str, Any]]
    total: int


def search(
    store: CampaignStore, result: HullResult | None, wanted: Wanted, *, limit: int = 0
) -> Found:
    """Structures that match: DFT-relaxed ones first, then by their height above the hull.

    Parameters
    ----------
    result
        The hull as far as it is known; None before.
    limit
        Rows, at most; 0 for all.

    Raises
    ------
    InputError
        The formula is none, or holds other elements.
    """
    query = _query(store, wanted)
    entries = {} if result is None else {e.structure_index: e for e in result.entries}
    relaxed = [e for e in entries.values() if _matches(e, query, wanted)]
    chosen = relaxed[:limit] if limit else relaxed
    documents = {
        document["index"]: document
        for document in store.search(
            {"index": {"$in": [e.structure_index for e in chosen]}}, FIELDS, sort=["index"]
        )
    }
    rows = [_row(documents[e.structure_index], result, e) for e in chosen]
    if wanted.stable_only:
        return Found(rows, len(relaxed))
    if wanted.structure_index in entries:
        return Found(rows, len(relaxed))
    heights: dict[str, float] = {"$gte": 0.0}
    parts: list[tuple[dict[str, Any], list[str]]] = [
        (
            {"energy_above_hull": heights, "energy_from": {"$ne": DFT_RELAXED}},
            ["energy_above_hull", "index"],
        )
    ]
    if wanted.max_energy_above_hull is None:
        total = store.count(**query)
        # MongoDB puts what has no height first, a reader wants it last: so two reads.
        unknown: dict[str, Any] = {"energy_above_hull": None}
        if entries:
            unknown["final.state"] = {"$ne": "done"}
        parts.append((unknown, ["index"]))
    else:
        heights["$lte"] = wanted.max_energy_above_hull
        total = len(relaxed) + store.count(**query, **parts[0][0])
    for part, sort in parts:
        room = limit - len(rows) if limit else 0
        if room or not limit:
            found = store.search({**query, **part}, FIELDS, sort=sort, limit=room)
            rows += [_row(document, result, None) for document in found]
    return Found(rows, total)


def _query(store: CampaignStore, wanted: Wanted) -> dict[str, Any]:
    query: dict[str, Any] = {}
    if wanted.formula is not None:
        query["formula_pretty"] = _reduced(wanted.formula, store.campaign()["elements"])
    if wanted.structure_index is not None:
        query["index"] = wanted.structure_index
    if wanted.stage is not None:
        query["stage"] = wanted.stage
    return query


def _matches(entry: Entry, query: dict[str, Any], wanted: Wanted) -> bool:
    return (
        query.get("formula_pretty", entry.formula_pretty) == entry.formula_pretty
        and query.get("index", entry.structure_index) == entry.structure_index
        and query.get("stage", 3) == 3
        and (entry.is_stable or not wanted.stable_only)
        and (
            wanted.max_energy_above_hull is None
            or entry.energy_above_hull <= wanted.max_energy_above_hull
        )
    )


def _reduced(text: str, elements: Sequence[str]) -> str:
    """A formula as the database has it.

    Raises
    ------
    InputError
        It is none, or holds elements that the campaign has not.
    """
    try:
        composition = Composition(text)
        symbols = {str(element) for element in composition.elements}
    except (ValueError, KeyError) as error:
        raise InputError(f"{text!r} is no chemical formula; expected one such as CuPd3") from error
    if not symbols or not symbols <= set(elements):
        raise InputError(
            f"{text!r} is no formula of this campaign; expected one of {', '.join(elements)}"
        )
    return str(composition.reduced_formula)


def _row(
    document: dict[str, Any], result: HullResult | None, entry: Entry | None
) -> dict[str, Any]:
    """One structure: ``mtp`` and ``dft`` hold whose energies they are, and never meet."""
    dropped = document.get("dropped")
    final = document.get("final")
    row: dict[str, Any] = {
        "structure_index": document["index"],
        "prototype": document["prototype"],
        "formula_pretty": document["formula_pretty"],
        "nsites": document["nsites"],
        "stage": STAGES[document["stage"]],
        "energy_above_hull": None,
        "energy_above_hull_from": None,
        "is_stable": entry is not None and entry.is_stable,
        "mtp": _mtp(document.get("relaxed"), dropped),
        "dft": None,
        "dropped": dropped,
    }
    if dropped and "energy_above_hull" in dropped:
        row["energy_above_hull"] = dropped["energy_above_hull"]
        row["energy_above_hull_from"] = HEIGHT_SOURCES[dropped["stage"]]
    if entry is not None and result is not None:
        row["energy_above_hull"] = entry.energy_above_hull
        row["energy_above_hull_from"] = DFT_RELAXED
        row["dft"] = {"state": "done"} | {
            key: value
            for key, value in result.document(entry).items()
            if key not in row or key == "energy_above_hull"
        }
    elif final is not None:
        row["dft"] = dict(final)
    return row


def _mtp(relaxed: dict[str, Any] | None, dropped: dict[str, Any] | None) -> dict[str, Any] | None:
    if relaxed is None:
        return None
    return {
        "stage": STAGES[relaxed["stage"]],
        "potential": relaxed["potential"],
        "outcome": relaxed["outcome"],
        "energy_per_atom": relaxed["energy_per_atom"],
        "energy_above_hull": dropped.get("energy_above_hull")
        if dropped and dropped["stage"] == relaxed["stage"]
        else None,
    }
