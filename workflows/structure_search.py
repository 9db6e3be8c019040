"""Looking for structures of a campaign, with what the potential and what DFT said about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import DFT_RELAXED
from hullscreen.database.indexes import LOWEST_INDEXED_GRADE
from hullscreen.database.structure_queries import HULL_FIELDS
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.job_states import dft_states
from hullscreen.workflows.results import HullResult
from hullscreen.workflows.structure_filters import Query, Wanted, nearest, query_of

STAGES = {1: "screen 1", 2: "screen 2", 3: "final"}
# Names that people ask for, and where the documents have them.
FIELDS = {
    "structure_index": "index",
    "prototype": "prototype",
    "formula_pretty": "formula_pretty",
    "chemsys": "chemsys",
    "nelements": "nelements",
    "nsites": "nsites",
    "composition": "composition",
    "stage": "stage",
    "energy_per_atom": "energy_per_atom",
    "formation_energy_per_atom": "formation_energy_per_atom",
    "energy_above_hull": "energy_above_hull",
    "energy_above_hull_from": "energy_from",
    "is_stable": "is_stable",
    "decomposes_to": "decomposes_to",
    "space_group": "symmetry.symbol",
    "space_group_number": "symmetry.number",
    "crystal_system": "symmetry.crystal_system",
    "volume": "volume",
    "density": "density",
    "outcome": "relaxed.outcome",
    "potential": "relaxed.potential",
    "evaluations": "relaxed.evaluations",
    "grade": "relaxed.grade",
    "highest_grade": "relaxed.highest_grade",
    "dropped": "dropped.reason",
    "dropped_in_round": "dropped.round",
    "last_updated": "last_updated",
}
ENERGIES = ("energy_per_atom", "formation_energy_per_atom", "energy_above_hull")
# What a row says of a structure as such, and not once more of its DFT relaxation.
SAID_ALREADY = {"structure_index", "prototype", "formula_pretty", "nsites", "is_stable"}
CSV_FIELDS = tuple(
    name for name in FIELDS if name not in {"composition", "decomposes_to", "last_updated"}
)
# Known of few structures, and from another collection.
JOB_STATE = "job_state"
# What can be put in order: one value for each structure.
SORTABLE = tuple(name for name in FIELDS if name not in {"composition", "decomposes_to"})
READ = [*dict.fromkeys(path.partition(".")[0] for path in FIELDS.values()), "counts", "final"]
# Neither geometries nor earlier relaxations.
READ.remove("relaxed")
FALLING_GRADE = "-relaxed.highest_grade"
READ += [path for path in FIELDS.values() if path.startswith("relaxed.")]
READ += ["relaxed.stage", "relaxed.energy_per_atom"]


@dataclass(frozen=True)
class Found:
    """What a search found: rows as plain JSON, and how many there are without the limit."""

    rows: list[dict[str, Any]]
    total: int


def search(
    store: CampaignStore,
    result: HullResult | None,
    wanted: Wanted,
    *,
    limit: int = 0,
    sort: str = "",
) -> Found:
    """Structures that match: DFT-relaxed ones first, then by their height above the hull.

    Parameters
    ----------
    result
        The hull as far as it is known; None before.
    limit
        Rows, at most; 0 for all.
    sort
        One of `SORTABLE`, with ``-`` before it for the largest first: the order of all of them.
        What has no value comes last.

    Raises
    ------
    InputError
        What is wanted, or the field to sort by, does not exist.
    """
    query = query_of(store, wanted)
    entries = {} if result is None else {e.structure_index: e for e in result.entries}
    if sort:
        documents, total = _sorted(store, query, wanted, sort_path(sort), limit)
    else:
        documents, total = _by_height(store, query, wanted, entries, limit)
    rows = [_row(document, result, entries.get(document["index"])) for document in documents]
    return Found(rows, total)


def sort_path(sort: str) -> str:
    """Field of the documents to sort by, with ``-`` before it if the order falls.

    Raises
    ------
    InputError
        There is none of this name.
    """
    name = sort.removeprefix("-")
    if name not in SORTABLE:
        raise InputError(
            f"structures have no order by {name!r}; {nearest(name, SORTABLE)}, and all are "
            f"{', '.join(SORTABLE)}"
        )
    return "-" * sort.startswith("-") + FIELDS[name]


def checked_fields(text: str) -> list[str]:
    """Names of fields from a list with commas.

    Raises
    ------
    InputError
        One of them does not exist.
    """
    known = [*FIELDS, JOB_STATE]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InputError(
                f"structures have no field {name!r}; {nearest(name, known)}, and all are "
                f"{', '.join(known)}"
            )
    return names


def chosen_fields(
    store: CampaignStore, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Some fields of rows, in this order; what a structure does not have is None."""
    states = dft_states(store) if JOB_STATE in names else {}
    plain = [
        {
            **row,
            "dropped": (row["dropped"] or {}).get("reason"),
            JOB_STATE: states.get(row["structure_index"]),
        }
        for row in rows
    ]
    return [{name: row[name] for name in names} for row in plain]


def _by_height(
    store: CampaignStore,
    query: Query,
    wanted: Wanted,
    entries: Mapping[int, Entry],
    limit: int,
) -> tuple[list[dict[str, Any]], int]:
    """Documents of DFT-relaxed structures, then others by height, then those without one."""
    there = store.search({**query, "index": _within(query, entries)}, READ, sort=["index"])
    by_index = {document["index"]: document for document in there}
    relaxed = [
        by_index[index]
        for index, entry in entries.items()
        if index in by_index and _is_within(entry.energy_above_hull, wanted)
    ]
    documents = relaxed[: limit or None]
    if wanted.stable_only:
        return documents, len(relaxed)
    others = {**query, "$nor": [{"index": {"$in": list(entries)}}]} if entries else query
    parts = _in_parts(others, wanted, "energy_above_hull")
    documents += _read(store, parts, limit - len(documents) if limit else None)
    if not limit or len(documents) < limit:
        return documents, len(documents)
    # DFT-relaxed ones among them: without exceptions an index is enough to count.
    if wanted.has_height:
        query = {**query, "energy_above_hull": wanted.heights}
    return documents, store.number_of(query)


def _within(query: Query, entries: Mapping[int, Entry]) -> Query:
    """Condition on the index: an entry's, and what was wanted of it."""
    asked = query.get("index")
    if asked is None:
        return {"$in": list(entries)}
    chosen = set(asked["$in"]) if isinstance(asked, dict) else {asked}
    return {"$in": [index for index in entries if index in chosen]}


def _is_within(height: float, wanted: Wanted) -> bool:
    heights = wanted.heights
    return bool(heights["$gte"] <= height <= heights.get("$lte", height))


def _sorted(
    store: CampaignStore, query: Query, wanted: Wanted, path: str, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """Documents in the order of a field, those without it last."""
    if wanted.has_height:
        query = {**query, "energy_above_hull": wanted.heights}
    documents = _read(store, _in_parts(query, wanted, path), limit or None)
    if not limit or len(documents) < limit:
        return documents, len(documents)
    return documents, store.number_of(query)


def _in_parts(query: Query, wanted: Wanted, path: str) -> list[tuple[Query, list[str]]]:
    """Queries for what has a field and for what has not, each with its order.

    MongoDB puts what lacks a field first where values rise, a reader wants it last: so two reads.
    """
    falls, field = path.startswith("-"), path.removeprefix("-")
    order = [path] if field == "index" else [path, "-index" if falls else "index"]
    if field == "index":
        return [(query, order)]
    by_height = field == "energy_above_hull"
    there: Query = wanted.heights if by_height else {"$ne": None}
    if field.partition(".")[0] in HULL_FIELDS:
        # So that the index of those that DFT has relaxed serves.
        relaxed = {"is_stable": {"$in": [True, False]}, **query}
        return [
            ({**relaxed, field: _both(query.get(field), there)}, order),
            ({**query, field: None}, ["index"]),
        ]
    if path == FALLING_GRADE and field not in query:
        # High grades have an index.
        return [
            ({**query, field: {"$gte": LOWEST_INDEXED_GRADE}}, order),
            ({**query, field: {"$lt": LOWEST_INDEXED_GRADE}}, order),
            ({**query, field: None}, ["index"]),
        ]
    parts = [({**query, field: _both(query.get(field), there)}, order)]
    if not (by_height and wanted.has_height) and field not in query:
        parts.append(({**query, field: None}, ["index"]))
    return parts


def _both(asked: Any, there: Query) -> Any:
    return there if asked is None else asked


def _read(
    store: CampaignStore, parts: Sequence[tuple[Query, list[str]]], room: int | None
) -> list[dict[str, Any]]:
    """Documents of one part after the other, ``room`` at most."""
    documents: list[dict[str, Any]] = []
    for query, sort in parts:
        left = 0 if room is None else room - len(documents)
        if room is None or left > 0:
            documents += store.search(query, READ, sort=sort, limit=left)
    return documents


def _row(
    document: Mapping[str, Any], result: HullResult | None, entry: Entry | None
) -> dict[str, Any]:
    """One structure: ``mtp`` and ``dft`` hold whose energies they are, and never meet."""
    dropped = document.get("dropped")
    final = document.get("final")
    row = {name: _value(document, path) for name, path in FIELDS.items()}
    row |= {
        "stage": STAGES.get(document.get("stage", 0)),
        "is_stable": bool(document.get("is_stable")),
        "mtp": _mtp(document),
        "dft": None if final is None else dict(final),
        "dropped": dropped,
    }
    if entry is not None and result is not None:
        found = result.document(entry)
        row |= {name: found[name] for name in (*ENERGIES, "is_stable")}
        row["energy_above_hull_from"] = DFT_RELAXED
        row["dft"] = {"state": "done"} | {
            name: value for name, value in found.items() if name not in SAID_ALREADY
        }
    return row


def _value(document: Mapping[str, Any], path: str) -> Any:
    """A field as plain JSON; None where it, or what should hold it, is missing."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value.isoformat() if isinstance(value, datetime) else value


def _mtp(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last relaxation with a potential."""
    relaxed, dropped = document.get("relaxed"), document.get("dropped") or {}
    if not relaxed:
        return None
    stage = relaxed.get("stage")
    return {
        "stage": STAGES.get(stage),
        "potential": relaxed.get("potential"),
        "outcome": relaxed.get("outcome"),
        "energy_per_atom": relaxed.get("energy_per_atom"),
        "energy_above_hull": dropped.get("energy_above_hull")
        if dropped.get("stage") == stage
        else None,
    }
