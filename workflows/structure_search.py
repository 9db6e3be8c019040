"""Looking for structures of a campaign, with what the potential and what DFT said about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.indexes import LOWEST_INDEXED_GRADE
from hullscreen.database.structure_queries import HULL_FIELDS
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.results import HullResult
from hullscreen.workflows.structure_filters import Query, Wanted, query_of
from hullscreen.workflows.structure_rows import READ, row_of, sort_path

FALLING_GRADE = "-relaxed.highest_grade"


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
    rows = [row_of(document, result, entries.get(document["index"])) for document in documents]
    return Found(rows, total)


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
