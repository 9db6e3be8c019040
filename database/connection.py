"""Connections to MongoDB: which server, with which guarantees, and what to say when it is gone.

Writes are acknowledged by a majority and journalled, so what was reported as written survives a
kill of anything. A password never appears in a message: every address passes through
`without_login`, every other text through `redact`.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import MongoClient, timeout
from pymongo.database import Database
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

from hullscreen.database.addresses import not_usable, resolve, without_login
from hullscreen.database.embedded_server import ServerHandle, acquire
from hullscreen.database.failures import SERVER_AWAY, explain, is_known
from hullscreen.potentials.errors import InputError

__all__ = ["SERVER_AWAY", "Connection", "Silence", "connect", "open_database", "reconnecting"]

APPLICATION_NAME = "hullscreen"
LONGEST_PAUSE_S = 2.0
CLOSING_PATIENCE_S = 2.0

Document = dict[str, Any]
CODEC: CodecOptions[Document] = CodecOptions(
    tz_aware=True, tzinfo=UTC, uuid_representation=UuidRepresentation.STANDARD
)

Result = TypeVar("Result")


@dataclass
class Silence:
    """Who is told, again and again, that the server does not answer.

    Attributes
    ----------
    tell
        Called with the moment since which it has not.
    """

    tell: Callable[[datetime], None] | None = None


@dataclass(frozen=True)
class Connection:
    """An open database; made by `open_database`, which also closes it.

    Attributes
    ----------
    directory
        Of the campaign whose database it is; None in a worker that knows only the address.
    read_only
        Whether `Collections` are to write nothing through it, not even a missing index.
    """

    database: Database[Document]
    uri: str = field(repr=False)
    name: str
    embedded: bool
    server: ServerHandle | None = field(default=None, repr=False)
    directory: Path | None = None
    silence: Silence = field(default_factory=Silence, repr=False, compare=False)
    read_only: bool = False

    def server_usage(self) -> tuple[float, int]:
        """Processor time of the server since it was started, s, and its peak memory in bytes."""
        status = self.database.command("serverStatus")["extra_info"]
        microseconds = status.get("user_time_us", 0) + status.get("system_time_us", 0)
        return 1e-6 * microseconds, 1024 * status.get("maximum_resident_set_kb", 0)


@contextlib.contextmanager
def open_database(
    project_directory: Path,
    *,
    uri: str = "",
    uri_file: Path | None = None,
    name: str = "hullscreen",
    timeout_s: float = 20.0,
) -> Iterator[Connection]:
    """Database of a project: on the user's server, or on the embedded one while this is open.

    Parameters
    ----------
    project_directory
        Where the embedded server keeps its data, and what a relative ``uri_file`` is relative to.
    uri, uri_file
        As in `resolve`.
    name
        Name of the database.
    timeout_s
        Longest wait in seconds for a server to be found, here and in every later operation.

    Raises
    ------
    DatabaseError
        The server cannot be started or reached, or refuses the login.
    InputError
        The URI or its file is not acceptable.

    Examples
    --------
    >>> with open_database(Path("cu-pd")) as connection:
    ...     connection.database["structures"].find_one()
    """
    address = resolve(project_directory, uri, uri_file)
    with contextlib.ExitStack() as stack:
        server = None
        if address is None:
            server = stack.enter_context(acquire(project_directory))
            address = server.uri
        database = connect(address, name, timeout_s=timeout_s)
        stack.callback(_close, database.client)
        yield Connection(
            database,
            address,
            name,
            embedded=server is not None,
            server=server,
            directory=project_directory,
        )


def _close(client: MongoClient[Document]) -> None:
    """Close a client, which tells its server so: not for long, if that is away."""
    with timeout(CLOSING_PATIENCE_S):
        client.close()


def connect(uri: str, database_name: str, *, timeout_s: float = 20.0) -> Database[Document]:
    """Database on a server that was reached and accepted the login; close its ``client`` after use.

    Parameters
    ----------
    uri
        Address of the server; its options for write concern are overruled.
    database_name
        Name of the database.
    timeout_s
        Longest wait in seconds for a usable server, here and in every later operation.

    Raises
    ------
    DatabaseError
        No server answers, or it refuses the login.
    InputError
        The URI is malformed.

    Notes
    -----
    Dates are read as UTC with their time zone. pymongo repeats a read that failed once; it repeats
    a write only on replica sets, so on a single server use `reconnecting`.
    """
    milliseconds = max(int(timeout_s * 1000), 1)
    try:
        with warnings.catch_warnings():
            # pymongo would only warn of a misspelt option, and then connect without TLS, say.
            warnings.simplefilter("error", UserWarning)
            client: MongoClient[Document] = MongoClient(
                uri,
                w="majority",
                journal=True,
                retryReads=True,
                retryWrites=True,
                appname=APPLICATION_NAME,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
            )
    except OSError as error:
        # Certificates are read at once; an ssl.SSLError is an OSError that has no file.
        raise InputError(
            f"a certificate file that {without_login(uri)} names cannot be used: "
            f"{error.strerror or 'it holds no certificate or key'}; check tlsCAFile and "
            "tlsCertificateKeyFile"
        ) from None
    except (ConfigurationError, ValueError, TypeError, UserWarning) as error:
        # ConfigurationError includes InvalidURI. Their texts quote parts of the address, perhaps of
        # the password, so neither most texts nor the chain are shown.
        text = str(error)
        harmless = text.startswith(("Unknown option", "The DNS"))
        problem = text if harmless else type(error).__name__
        raise InputError(not_usable(uri, problem)) from None
    try:
        database = client.get_database(database_name, codec_options=CODEC)
        # Unlike a ping, this needs a login where the server asks for one.
        database.command("listCollections", nameOnly=True, authorizedCollections=True)
    except PyMongoError as error:
        client.close()
        raise explain(error, uri) from error
    except BaseException:
        client.close()
        raise
    return database


def reconnecting(
    connection: Connection, operation: Callable[[], Result], *, patience_s: float = 60.0
) -> Result:
    """Result of an operation that is repeated while the server is away.

    Parameters
    ----------
    connection
        Open connection; its embedded server is brought back where it was killed.
    operation
        Complete operation, such as a query *with* the reading of its cursor. It must be idempotent:
        a write whose answer was lost is repeated.
    patience_s
        Seconds after the first failure until the server is given up.

    Raises
    ------
    DatabaseError
        The server did not come back in time, cannot be started, or its disk is full.

    Examples
    --------
    >>> reconnecting(connection, lambda: batches.replace_one({"_id": key}, batch, upsert=True))
    """
    deadline: float | None = None
    pause_s = 0.05
    asked_at = datetime.now(UTC)
    while True:
        try:
            return operation()
        except SERVER_AWAY as error:
            now = time.monotonic()
            deadline = now + patience_s if deadline is None else deadline
            if connection.silence.tell is not None:
                connection.silence.tell(asked_at)
            if now + pause_s > deadline:
                raise explain(error, connection.uri) from error
            if connection.server is not None:
                connection.server.ensure_running(timeout_s=max(deadline - now, 1.0))
        except OperationFailure as error:
            _raise_if_known(error, connection.uri)
        time.sleep(pause_s)
        pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)


def _raise_if_known(error: OperationFailure, uri: str) -> NoReturn:
    """Raise a sentence for a failure that a user can act on, and any other one as it is."""
    if is_known(error):
        raise explain(error, uri) from error
    raise error
