"""A campaign as files, in the layout of ``mongodump --gzip``.

```
<target>/<database>/<collection>.bson.gz             the documents, one after another
<target>/<database>/<collection>.metadata.json.gz    its indexes
```
The folder appears when it is complete. Documents pass through as bytes, a few thousand at a time.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bson import json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from hullscreen.database.campaign_parts import (
    CAMPAIGNS,
    Part,
    campaign_document,
    own_parts,
    refuse_at_work,
    shared_parts,
    signs_of_work,
)
from hullscreen.database.connection import SERVER_AWAY, Connection, reconnecting
from hullscreen.database.schema import COLLECTION as SCHEMA
from hullscreen.potentials.errors import CampaignError

TELL_EVERY = 1000
READ_AT_ONCE = 500
# Most of a dump are coordinates, which hardly become smaller, however hard one tries.
COMPRESSION = 1
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)

DUMPED = "documents dumped"
Progress = Callable[[str, int, int], None]
"""Takes what is counted, how many are done, and how many there are."""


def dump_campaign(
    connection: Connection, name: str, target: Path, *, progress: Progress
) -> dict[str, int]:
    """Write a campaign, and all DFT results of its elements, into a new folder.

    Parameters
    ----------
    name
        Name of the campaign; nobody may be working on it.
    target
        The folder to make; all of it is there in the end, or nothing.

    Returns
    -------
    Number of documents of each collection.

    Raises
    ------
    CampaignError
        There is no such campaign, or somebody works on it.
    OSError
        The folder exists, or cannot be written; it is named.
    """
    campaign = campaign_document(connection, name)
    refuse_at_work(connection, name, "a dump", pause_is_rest=True)
    before = signs_of_work(connection, name)
    parts = [
        Part(SCHEMA, {}),
        Part(CAMPAIGNS, {"name": name}),
        *own_parts(connection, name),
        *shared_parts(campaign),
    ]
    with _appearing(target) as folder:
        inside = folder / connection.name
        inside.mkdir()
        total = sum(_count(connection, part) for part in parts)
        counts: dict[str, int] = {}
        for part in parts:
            tell = partial(_tell, progress, sum(counts.values()), total)
            counts[part.collection] = _write_part(connection, part, inside, tell)
        progress(DUMPED, sum(counts.values()), sum(counts.values()))
        if signs_of_work(connection, name) != before or not counts[CAMPAIGNS]:
            raise CampaignError(
                f"somebody began to work on campaign {name!r} while it was being dumped, so the "
                "parts do not fit together: pause it and dump again; nothing was kept"
            )
    return counts


def documents_of(connection: Connection, part: Part) -> Iterator[RawBSONDocument]:
    """Documents of a part in the order of their ``_id``; the server may go away meanwhile."""
    collection = connection.database[part.collection].with_options(codec_options=RAW)
    query: dict[str, Any] = part.query
    last: RawBSONDocument | None = None
    while True:
        try:
            # In this order the collection is read once, and can be read on from any document.
            for document in collection.find(
                query, hint="_id_", sort=[("_id", 1)], batch_size=READ_AT_ONCE
            ):
                yield document
                last = document
        except SERVER_AWAY:
            reconnecting(connection, lambda: connection.database.command("ping"))
            if last is not None:
                query = {"$and": [part.query, {"_id": {"$gt": last["_id"]}}]}
        else:
            return


def _count(connection: Connection, part: Part) -> int:
    collection = connection.database[part.collection]
    return reconnecting(connection, lambda: collection.count_documents(part.query))


def _tell(progress: Progress, before: int, total: int, done: int) -> None:
    progress(DUMPED, before + done, max(before + done, total))


def _write_part(
    connection: Connection, part: Part, folder: Path, tell: Callable[[int], None]
) -> int:
    """Write the documents and the indexes of a part, and say how many documents there were."""
    done = 0
    tell(done)
    with _compressed(folder / f"{part.collection}.bson.gz") as file:
        for document in documents_of(connection, part):
            file.write(document.raw)
            done += 1
            if done % TELL_EVERY == 0:
                tell(done)
    collection = connection.database[part.collection]
    indexes = reconnecting(connection, lambda: list(collection.list_indexes()))
    metadata = {
        "options": {},
        "indexes": [dict(index) for index in indexes],
        "collectionName": part.collection,
        "type": "collection",
    }
    with _compressed(folder / f"{part.collection}.metadata.json.gz") as file:
        file.write(
            json_util.dumps(metadata, json_options=json_util.CANONICAL_JSON_OPTIONS).encode()
        )
    return done


@contextmanager
def _compressed(path: Path) -> Iterator[gzip.GzipFile]:
    """A file that is on the disk when the block ends."""
    with path.open("wb") as file:
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=COMPRESSION) as packed:
            yield packed
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its name if the block succeeds, and goes if not."""
    if target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield folder
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        # The user knows the folder's own name, not the temporary one.
        error.filename = str(target)
        raise
