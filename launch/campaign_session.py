"""A campaign directory opened: its settings, its database, its documents."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hullscreen.database.addresses import URI_VARIABLE, host_of
from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection, open_database
from hullscreen.database.failures import DAMAGED
from hullscreen.database.schema import check_schema
from hullscreen.launch.launchpad_file import given_uri, other_server
from hullscreen.launch.settings import Settings, load, with_database_uri
from hullscreen.potentials.errors import CampaignError, DatabaseError, HullscreenError
from hullscreen.workflows.output_tails import safe_line

# Where the embedded server keeps its data; without it no campaign of the directory was started.
EMBEDDED_DATA = Path("database", "data")
LONGEST_DAMAGE = 200


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
    DatabaseError
        The database holds what no campaign writes, and whoever reads it cannot go on.
    """
    settings = with_database_uri(load(directory), database_uri)
    uri = given_uri(settings.database, directory)
    if uri is None and not (directory / EMBEDDED_DATA).is_dir():
        raise _not_started(directory, settings, uri)
    with _damage_told(settings), open_session(directory, database_uri) as session:
        if session.store.find_campaign() is None:
            raise _not_started(directory, settings, uri)
        yield session


@contextmanager
def _damage_told(settings: Settings) -> Iterator[None]:
    """Say in a sentence that documents are not as they should be, whatever stumbles over them."""
    try:
        yield
    except (HullscreenError, UnicodeError):
        raise
    except DAMAGED as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = safe_line(f"{type(error).__name__}: {error}")[:LONGEST_DAMAGE]
        raise DatabaseError(
            f"the database {settings.database.name!r} holds something unexpected about campaign "
            f"{settings.campaign.name!r} ({what}; {Path(last.filename).name}, line {last.lineno}): "
            "restore it from a dump, or report this if nobody has changed its documents"
        ) from error


def only_reading(session: Session) -> Session:
    """The same session, through which nothing is written to the campaign's documents."""
    connection = replace(session.connection, read_only=True)
    return replace(
        session, connection=connection, store=CampaignStore(connection, session.store.name)
    )


def _not_started(directory: Path, settings: Settings, uri: str | None) -> CampaignError:
    """What to say of a campaign that its database does not hold: it may be in another one."""
    name = settings.campaign.name
    begin = f"`hullscreen run {directory}` or `launch` starts it"
    if uri is not None and (directory / EMBEDDED_DATA).is_dir():
        return CampaignError(
            f"campaign {name!r} has not been started in the database {settings.database.name!r} at "
            f"{host_of(uri)}, but {directory / EMBEDDED_DATA.parent} holds a database of the "
            f"directory's own: to bring its campaign over, call `hullscreen db dump {directory} "
            f"DUMP` as before the address was given (without [database], {URI_VARIABLE} and --db), "
            f"then `hullscreen db restore {directory} DUMP` with it; otherwise {begin} anew"
        )
    host = other_server(directory)
    if uri is None and host:
        return CampaignError(
            f"campaign {name!r} has not been started in a database of the directory's own, but was "
            f"last worked on at {host}: give that address again ({URI_VARIABLE}, or uri_file under "
            f"[database]); otherwise {begin} anew"
        )
    return CampaignError(f"campaign {name!r} has not been started; {begin}")
