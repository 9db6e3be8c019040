"""The structures of a campaign as a plain pymongo collection, for people who know MongoDB."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymongo.collection import Collection

from hullscreen.database.addresses import resolve
from hullscreen.database.connection import open_database
from hullscreen.database.schema import check_schema, require_current
from hullscreen.potentials.errors import InputError

SETTINGS_FILE = "hullscreen.toml"
EMBEDDED_DATA = Path("database", "data")


@contextmanager
def structures_of(directory: str | Path) -> Iterator[Collection[dict[str, Any]]]:
    """The collection ``structures`` of a campaign's database, while this is open.

    The campaign's own server is started if nobody uses it yet, and shared with a campaign that is
    running. Others of its database's collections are at ``structures.database``. Only read: what a
    campaign decides by is in these documents.

    Parameters
    ----------
    directory
        Of the campaign; its ``hullscreen.toml`` says where the database is.

    Raises
    ------
    InputError
        There is no campaign, or it was not started.
    DatabaseError
        The server cannot be reached, or another version of hullscreen wrote the database.

    Examples
    --------
    >>> with structures_of("cu-pd") as structures:
    ...     near = structures.find({"chemsys": "Cu-Pd", "energy_above_hull": {"$lt": 0.025}})
    ...     print([structure["formula_pretty"] for structure in near])
    """
    folder = Path(directory)
    settings = _database_settings(folder)
    uri_file = Path(settings["uri_file"]) if settings.get("uri_file") else None
    address = resolve(folder, settings.get("uri", ""), uri_file)
    if address is None and not (folder / EMBEDDED_DATA).is_dir():
        raise InputError(
            f"the campaign in {folder} has no database yet: `hullscreen run {folder}` starts it"
        )
    with open_database(
        folder, uri=address or "", name=settings.get("name", "hullscreen")
    ) as connection:
        check_schema(connection)
        require_current(connection)
        yield connection.database["structures"]


def _database_settings(directory: Path) -> dict[str, str]:
    """The table ``[database]`` of a campaign's settings."""
    path = directory / SETTINGS_FILE
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}): expected the directory of a campaign"
        ) from error
    settings = tables.get("database", {})
    if not isinstance(settings, dict) or not all(isinstance(v, str) for v in settings.values()):
        raise InputError(f"[database] in {path} should hold texts; `hullscreen status` says more")
    return settings
