"""A campaign directory opened: its settings, its database, its documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection, open_database
from hullscreen.database.schema import check_schema
from hullscreen.launch.launchpad_file import given_uri
from hullscreen.launch.settings import Settings, load, with_database_uri
from hullscreen.potentials.errors import CampaignError

# Where the embedded server keeps its data; without it no campaign of the directory was started.
EMBEDDED_DATA = Path("database", "data")


@dataclass(frozen=True)
class Session:
    """What a command on a campaign directory works with.

    Attributes
    ----------
    directory
        The campaign's directory, absolute.
    settings
        Its ``hullscreen.toml``.
    connection
        The open database.
    store
        The campaign's documents in it; they may not exist yet.
    """

    directory: Path
    settings: Settings
    connection: Connection
    store: CampaignStore


@contextmanager
def open_session(directory: Path, database_uri: str | None = None) -> Iterator[Session]:
    """Open a campaign directory; ``database_uri`` overrules the address in its settings.

    Raises
    ------
    SettingsError
        ``hullscreen.toml`` is missing or wrong.
    DatabaseError
        The server cannot be started or reached, or a newer program has written the database.
    """
    settings = with_database_uri(load(directory), database_uri)
    database = settings.database
    with open_database(
        directory,
        uri=database.uri,
        uri_file=Path(database.uri_file).expanduser() if database.uri_file else None,
        name=database.name,
    ) as connection:
        check_schema(connection)
        store = CampaignStore(connection, settings.campaign.name)
        yield Session(directory.resolve(), settings, connection, store)


@contextmanager
def open_started(directory: Path, database_uri: str | None = None) -> Iterator[Session]:
    """As `open_session`, for commands that only read: the campaign must have been started.

    Raises
    ------
    CampaignError
        It was not; no server is started in a directory that has no data.
    """
    settings = with_database_uri(load(directory), database_uri)
    not_started = CampaignError(
        f"campaign {settings.campaign.name!r} has not been started; `hullscreen run {directory}` "
        "or `launch` starts it"
    )
    embedded = given_uri(settings.database, directory) is None
    if embedded and not (directory / EMBEDDED_DATA).is_dir():
        raise not_started
    with open_session(directory, database_uri) as session:
        if session.store.find_campaign() is None:
            raise not_started
        yield session
