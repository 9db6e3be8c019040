"""What every query of a campaign is made of: repeated while the server is away, safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from pymongo import ASCENDING, WriteConcern
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from hullscreen.database.connection import Connection, reconnecting

Result = TypeVar("Result")
Item = TypeVar("Item")
Query = dict[str, Any]

DUPLICATE_KEY = 11000
BULK_SIZE = 2000
KEYS_AT_ONCE = 1000

INDEXES: dict[str, list[tuple[list[str], bool]]] = {
    # For each collection the fields of its indexes, and whether they are unique.
    "campaigns": [(["name"], True)],
    "structures": [
        (["campaign", "index"], True),
        (["campaign", "order"], False),
        (["campaign", "stage", "order"], False),
        # With the outcome, so that outcomes are counted without reading a structure.
        (["campaign", "relaxed.stage", "relaxed.potential", "relaxed.outcome"], False),
        (["campaign", "dropped.stage", "dropped.reason"], False),
        # Searches, sorted by height; with the stage, so that others' structures are not read.
        (["campaign", "dropped.energy_above_hull", "index", "stage"], False),
        (["campaign", "formula_pretty", "dropped.energy_above_hull", "index", "stage"], False),
    ],
    "selected": [(["campaign", "round", "number"], True), (["campaign", "key"], False)],
    "rounds": [(["campaign", "number"], True)],
    "potentials": [(["campaign", "number"], True)],
    "dft_results": [(["key"], True), (["campaign", "purpose", "state"], False)],
    "reference_relaxations": [(["key"], True)],
    "attempts": [(["key", "run"], True)],
}


class Collections:
    """One campaign's view of a database.

    Parameters
    ----------
    connection
        Open connection; its database holds ours and FireWorks' collections.
    name
        Name of the campaign.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self._connection = connection
        durable = WriteConcern(w="majority", j=True)
        self._database: Database[dict[str, Any]] = connection.database.with_options(
            write_concern=durable
        )

    def ensure_indexes(self) -> None:
        """Create what the queries need."""
        for collection, indexes in INDEXES.items():
            for fields, unique in indexes:
                self._create_index(collection, [(name, ASCENDING) for name in fields], unique)

    def _create_index(self, collection: str, keys: list[tuple[str, int]], unique: bool) -> None:
        self._retry(lambda: self._database[collection].create_index(keys, unique=unique))

    def _find(
        self,
        collection: str,
        query: Query,
        fields: Sequence[str] = (),
        *,
        sort: Sequence[str] = (),
        limit: int = 0,
    ) -> list[dict[str, Any]]:
        """Documents that match, some fields or all, the smallest values of ``sort`` first."""

        def read() -> list[dict[str, Any]]:
            cursor = self._database[collection].find(
                query, {"_id": 0, **dict.fromkeys(fields, 1)}, limit=limit
            )
            return list(cursor.sort([(name, ASCENDING) for name in sort]) if sort else cursor)

        return self._retry(read)

    def _read_in_parts(
        self, collection: str, query: Query, fields: Sequence[str], *, by: str, size: int
    ) -> Iterator[list[dict[str, Any]]]:
        """Documents that match, sorted by a unique number from 0, at most ``size`` at once.

        Each part is a query of its own, so that a server that went away costs no more than one.
        """
        last = -1
        while True:
            beyond = {"$and": [query, {by: {"$gt": last}}]}
            part = self._find(collection, beyond, [*fields, by], sort=[by], limit=size)
            if part:
                yield part
                last = part[-1][by]
            if len(part) < size:
                return

    def _aggregate(self, collection: str, pipeline: list[Query]) -> list[dict[str, Any]]:
        return self._retry(lambda: list(self._database[collection].aggregate(pipeline)))

    def _update(self, collection: str, query: Query, change: Query) -> None:
        """Change every document that matches."""
        self._retry(lambda: self._database[collection].update_many(query, change))

    def _insert(self, collection: str, document: dict[str, Any]) -> None:
        """Add a document unless its key exists."""
        try:
            self._retry(lambda: self._database[collection].insert_one(dict(document)))
        except DuplicateKeyError:
            return

    def _bulk(self, collection: str, writes: Iterable[Any]) -> None:
        """Many writes; documents that exist already are left as they are."""
        for part in parts_of(writes, BULK_SIZE):
            self._write_part(collection, part)

    def _write_part(self, collection: str, part: Sequence[Any]) -> None:
        try:
            self._retry(lambda: self._database[collection].bulk_write(part, ordered=False))
        except BulkWriteError as error:
            if any(problem["code"] != DUPLICATE_KEY for problem in error.details["writeErrors"]):
                raise

    def _retry(self, operation: Callable[[], Result]) -> Result:
        return reconnecting(self._connection, operation)


def parts_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive parts of at most ``size`` items."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
