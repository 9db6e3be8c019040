"""A dumped campaign as it lies in a folder: its documents and indexes, read one after another."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from bson import decode_file_iter, json_util
from bson.codec_options import CodecOptions
from bson.errors import BSONError

from hullscreen.database.campaign_parts import (
    CAMPAIGNS,
    FIREWORKS,
    LAUNCHES,
    OWN,
    RESULTS,
    WORKFLOWS,
)
from hullscreen.database.documents import SCHEMA_VERSION
from hullscreen.database.schema import COLLECTION as SCHEMA
from hullscreen.potentials.errors import CampaignError, FileFormatError

ENDING = ".bson.gz"
PLAIN: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)

Document = dict[str, Any]


@dataclass(frozen=True)
class Dump:
    """A folder that `hullscreen.database.dump.dump_campaign` has written.

    Attributes
    ----------
    folder
        That of the database in it.
    campaign
        The campaign's document.
    """

    folder: Path
    campaign: Document

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return str(self.campaign["name"])

    def collections(self) -> list[str]:
        """What there is to write: what others may use first, what workers may take last."""
        order = (*RESULTS, *OWN, LAUNCHES, WORKFLOWS, CAMPAIGNS, FIREWORKS)
        return [collection for collection in order if self._path(collection).exists()]

    @property
    def identity(self) -> str:
        """A fingerprint of the content: gzip ends each file with its checksum and length."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.glob(f"*{ENDING}")):
            digest.update(path.name.encode() + _end_of(path))
        return digest.hexdigest()

    def size(self, collection: str) -> int:
        """Compressed documents in bytes."""
        return self._path(collection).stat().st_size

    def documents(
        self, collection: str, tell: Callable[[int], object] = lambda _n_bytes: None
    ) -> Iterator[Document]:
        """Documents of a collection, one after another.

        Parameters
        ----------
        tell
            Called with the compressed bytes that are read so far.

        Raises
        ------
        FileFormatError
            The file is damaged or cut off.
        """
        path = self._path(collection)
        number = 0
        try:
            with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as file:
                for document in decode_file_iter(cast("IO[bytes]", file), PLAIN):
                    number += 1
                    yield document
                    tell(packed.tell())
        except (EOFError, gzip.BadGzipFile, zlib.error, BSONError) as error:
            raise FileFormatError(
                f"{path} is damaged after document {number} ({error}): take another copy of the "
                "dump, and restore again"
            ) from error

    def indexes(self, collection: str) -> list[Document]:
        """Its indexes as the server described them, but for that of ``_id``."""
        with gzip.open(self.folder / f"{collection}.metadata.json.gz") as file:
            described: Document = json_util.loads(file.read())
        return [dict(index) for index in described["indexes"] if index["name"] != "_id_"]

    def _path(self, collection: str) -> Path:
        return self.folder / f"{collection}{ENDING}"


def open_dump(folder: Path) -> Dump:
    """A dump of one campaign.

    Raises
    ------
    FileFormatError
        It is none, or damaged.
    CampaignError
        A newer hullscreen wrote it.
    """
    inside = sorted(path.parent for path in folder.glob(f"*/{CAMPAIGNS}{ENDING}"))
    if len(inside) != 1:
        raise FileFormatError(
            f"{folder} is no dump of a campaign: expected one folder in it with "
            f"{CAMPAIGNS}{ENDING}, as `hullscreen db dump` writes"
        )
    empty = Dump(inside[0], {})
    campaigns = list(empty.documents(CAMPAIGNS))
    if len(campaigns) != 1:
        raise FileFormatError(f"{folder} holds {len(campaigns)} campaigns; expected one")
    schema = next(empty.documents(SCHEMA), {"version": 0})
    if schema["version"] > SCHEMA_VERSION:
        raise CampaignError(
            f"{folder} was written by hullscreen {schema['hullscreen']} (schema "
            f"{schema['version']}), and this one knows schemas up to {SCHEMA_VERSION}: update "
            "hullscreen"
        )
    return Dump(inside[0], campaigns[0])


def _end_of(path: Path) -> bytes:
    """The last eight bytes of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8))
        return file.read()
