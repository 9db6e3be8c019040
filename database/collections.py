"""What every query of a campaign is made of: repeated while the server is away, safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from pymongo import ASCENDING, DESCENDING, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    WriteConcernError,
)

from hullscreen.database.connection import CODEC, Connection, reconnecting
from hullscreen.database.indexes import INDEXES, PARTIAL
from hullscreen.potentials.errors import DatabaseError

Result = TypeVar("Result")
Item = TypeVar("Item")
Query = dict[str, Any]

DUPLICATE_KEY = 11000
# Said where a query names an index that a restored copy of a database may lack.
NO_SUCH_INDEX = 2
BULK_SIZE = 2000
KEYS_AT_ONCE = 1000
ALREADY_THERE = DuplicateKeyError
"""What a write raises whose key another process has written first."""
# What only the process may write that holds the step.
OF_STEPS = {"structures", "selected", "rounds", "potentials"}


class Collections:
    """One campaign's view of a database.

    Parameters
    ----------
    connection
        Open connection; its database holds ours and FireWorks' collections.
    name
        Name of the campaign.
    require_claim
        Called before every write that decides what a campaign does; raises if the step at work was
        taken away from this process. Results of DFT are kept all the same: they are paid for.
    """

    def __init__(
        self, connection: Connection, name: str, require_claim: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.connection = connection
        self._require_claim = require_claim
        durable = WriteConcern(w="majority", j=True)
        # Also of a LaunchPad's database, which is opened without these options.
        self._database: Database[dict[str, Any]] = connection.database.with_options(
            codec_options=CODEC, write_concern=durable
        )

    def require_claim(self) -> None:
        """Raise if the step at work was taken away; nothing happens outside steps."""
        if self._require_claim is not None:
            self._require_claim()

    def ensure_indexes(self) -> None:
        """Create what the queries need."""
        self._refuse_if_only_reading()
        for collection, indexes in INDEXES.items():
            for fields, unique in indexes:
                options: dict[str, Any] = {"unique": unique}
                if tuple(fields) in PARTIAL:
                    options["partialFilterExpression"] = PARTIAL[tuple(fields)]
                self._create_index(collection, ascending(fields), options)

    def _create_index(
        self, collection: str, keys: list[tuple[str, int]], options: dict[str, Any]
    ) -> None:
        self._retry(lambda: self._database[collection].create_index(keys, **options))

    def _find(
        self,
        collection: str,
        query: Query,
        fields: Sequence[str] = (),
        *,
        sort: Sequence[str] = (),
        limit: int = 0,
        along: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Documents that match, some fields or all, the smallest values of ``sort`` first.

        The largest first of a field that is named with a ``-`` before it.

        ``along`` are the fields of the index to use; without them MongoDB chooses one.
        """

        def read() -> list[dict[str, Any]]:
            cursor = self._database[collection].find(
                query,
                {"_id": 0, **dict.fromkeys(fields, 1)},
                limit=limit,
                batch_size=limit,
                sort=in_order(sort) or None,
                hint=ascending(along) or None,
            )
            return list(cursor)

        try:
            return self._retry(read)
        except OperationFailure as error:
            if not along or error.code != NO_SUCH_INDEX:
                raise
        try:
            self.ensure_indexes()
        except DatabaseError:
            # A user who may only read does without.
            along = ()
        return self._retry(read)

    def _read_in_parts(
        self,
        collection: str,
        query: Query,
        fields: Sequence[str],
        *,
        along: Sequence[str],
        size: int,
    ) -> Iterator[list[dict[str, Any]]]:
        """Documents that match, at most ``size`` at once, in the order of an index.

        Its last field is a unique number from 0; ``query`` gives values of all others. Each part is
        a query of its own, so that a server that went away costs no more than one.
        """
        last, by = -1, along[-1]
        while True:
            beyond = {"$and": [query, {by: {"$gt": last}}]}
            part = self._find(collection, beyond, [*fields, by], sort=[by], limit=size, along=along)
            if part:
                yield part
                last = part[-1][by]
            if len(part) < size:
                return

    def _aggregate(self, collection: str, pipeline: list[Query]) -> list[dict[str, Any]]:
        return self._retry(lambda: list(self._database[collection].aggregate(pipeline)))

    def _update(self, collection: str, query: Query, change: Query) -> None:
        """Change every document that matches."""
        self._write(collection, lambda: self._database[collection].update_many(query, change))

    def _insert(self, collection: str, document: dict[str, Any]) -> None:
        """Add a document unless its key exists."""
        try:
            self._write(collection, lambda: self._database[collection].insert_one(dict(document)))
        except DuplicateKeyError:
            return

    def _bulk(self, collection: str, writes: Iterable[Any]) -> None:
        """Many writes; documents that exist already are left as they are.

        While the server works on one part, the next is made.
        """
        with ThreadPoolExecutor(1) as writer:
            under_way: Future[None] | None = None
            for part in parts_of(writes, BULK_SIZE):
                if under_way is not None:
                    under_way.result()
                under_way = writer.submit(self._write_part, collection, part)
            if under_way is not None:
                under_way.result()

    def _write_part(self, collection: str, part: Sequence[Any]) -> None:
        codes = self._codes_of_bulk(collection, part)
        if NO_SUCH_INDEX in codes:
            self.ensure_indexes()
            self._codes_of_bulk(collection, part, harmless={DUPLICATE_KEY})

    def _codes_of_bulk(
        self,
        collection: str,
        part: Sequence[Any],
        harmless: AbstractSet[int] = frozenset({DUPLICATE_KEY, NO_SUCH_INDEX}),
    ) -> set[int]:
        """Codes of the writes that failed, all of them harmless."""
        codes: set[int] = set()
        self._write(
            collection,
            lambda: codes.update(bulk_write(self._database[collection], part, harmless)),
        )
        return codes

    def _write(self, collection: str, operation: Callable[[], object]) -> None:
        """Carry out a write, if the step that makes it is still this process's own."""
        self._refuse_if_only_reading()

        def checked() -> None:
            if collection in OF_STEPS:
                self.require_claim()
            operation()

        self._retry(checked)

    def _refuse_if_only_reading(self) -> None:
        if self.connection.read_only:
            raise DatabaseError(
                f"the database {self.connection.name!r} was opened to be read: nothing was written"
            )

    def _retry(self, operation: Callable[[], Result]) -> Result:
        return reconnecting(self.connection, operation)


def bulk_write(
    collection: Collection[dict[str, Any]], part: Sequence[Any], harmless: AbstractSet[int]
) -> set[int]:
    """Carry out writes in any order; codes of those that failed, all of them harmless.

    Raises
    ------
    BulkWriteError
        One failed in another way.
    WriteConcernError
        A majority has not confirmed them, so that they may be undone: they are to be repeated.
    """
    try:
        collection.bulk_write(part, ordered=False)
    except BulkWriteError as error:
        codes = {problem["code"] for problem in error.details["writeErrors"]}
        if codes - harmless:
            raise
        for unconfirmed in error.details["writeConcernErrors"]:
            raise WriteConcernError(unconfirmed["errmsg"], unconfirmed["code"]) from error
        return codes
    return set()


def ascending(fields: Sequence[str]) -> list[tuple[str, int]]:
    """Fields as MongoDB wants them to sort by, or of an index."""
    return [(name, ASCENDING) for name in fields]


def in_order(fields: Sequence[str]) -> list[tuple[str, int]]:
    """Fields to sort by; what begins with ``-`` falls."""
    return [
        (name.removeprefix("-"), DESCENDING if name.startswith("-") else ASCENDING)
        for name in fields
    ]


def parts_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive parts of at most ``size`` items."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
