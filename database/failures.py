"""What to say about a MongoDB server that is away or refuses: one sentence, without a password."""

import re
from typing import TypeGuard

from bson.errors import BSONError
from pymongo.errors import (
    ConnectionFailure,
    CursorNotFound,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from hullscreen.database.addresses import host_of, redact
from hullscreen.potentials.errors import DatabaseError

# The server's codes (MongoDB manual, "Error codes"); 8000 is Atlas' for a failed login.
NOT_AUTHORIZED = 13
LOGIN_FAILED_CODES = {18, 8000}
REFUSED_CODES = {NOT_AUTHORIZED, *LOGIN_FAILED_CODES}
DISK_FULL_CODES = {14031}
# While it makes files, the server tells in words alone.
DISK_FULL_WORDS = "No space left on device"

SERVER_AWAY = (ConnectionFailure, CursorNotFound, WriteConcernError)
"""What pymongo raises while a server is gone or restarting: the same operation works later.

A write that a majority has not confirmed, as while a primary steps down, may yet be undone.
"""

DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, BSONError)
"""What documents bring about that lack a field, or hold something else in it than they should."""

# Why a connection does not come about, in pymongo's words and in ours; the first match wins.
CERTIFICATE = "The certificate of the MongoDB server at {host} "
SERVER = "The MongoDB server at {host} "
NO_CONNECTION = (
    (
        r"certificate is not valid for|[Hh]ostname mismatch|IP address mismatch",
        f"{CERTIFICATE}is another host's: name the server in the URI as its certificate does",
    ),
    (
        r"certificate has expired|certificate is not yet valid",
        f"{CERTIFICATE}is not valid today: check this machine's clock, or have it renewed",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        f"{CERTIFICATE}is signed by nobody who is trusted here: give tlsCAFile=FILE in the URI",
    ),
    (
        r"(?i)CERTIFICATE.REQUIRED|BAD.CERTIFICATE|UNKNOWN.CA",
        f"{SERVER}asks for a client's certificate: give tlsCertificateKeyFile=FILE in the URI",
    ),
    (
        r"SSL handshake failed|\[SSL",
        f"{SERVER}speaks no TLS, which the URI asks for: check its port, or remove tls=true",
    ),
    (
        r"Name or service not known|name resolution",
        "There is no host of the name {host}: check the MongoDB URI",
    ),
    (
        r"connection closed|Connection reset",
        f"{SERVER}closed the connection without a word, as one does that asks for {{what}}",
    ),
)
UNCONFIRMED = (
    "The members of the replica set at {host} do not confirm what is written: check that most of "
    "them run"
)
ANSWERS_NOT = "No MongoDB server answers at {host}: check that it runs and can be reached from here"


def explain(error: PyMongoError, uri: str) -> DatabaseError:
    """One sentence for a failure of the server, with its host and without its password.

    Parameters
    ----------
    uri
        Address of the server; empty where it is not known.
    """
    at = f" at {host}" if (host := host_of(uri)) else ""
    code = error.code if isinstance(error, OperationFailure) else None
    if code in LOGIN_FAILED_CODES:
        return DatabaseError(
            f"The MongoDB server{at} refused the login: check user, password and authSource "
            "in the URI"
        )
    if code == NOT_AUTHORIZED and "requires authentication" in str(error):
        return DatabaseError(
            f"The MongoDB server{at} refused the login: it asks for a user, a password and "
            "perhaps authSource, and the URI has none"
        )
    if code == NOT_AUTHORIZED:
        return DatabaseError(_not_allowed(str(error), at))
    if is_disk_full(error):
        return DatabaseError(f"The disk of the MongoDB server{at} is full: free space, run again")
    if isinstance(error, SERVER_AWAY):
        unconfirmed = isinstance(error, WriteConcernError)
        sentence = UNCONFIRMED if unconfirmed else _no_connection(str(error), uri)
        return DatabaseError(sentence.format(host=host))
    return DatabaseError(f"The MongoDB server{at} refused an operation: {redact(str(error))}")


def is_known(error: Exception) -> TypeGuard[OperationFailure]:
    """Whether the server's answer is one that a user can act on: a refusal, or a full disk."""
    return isinstance(error, OperationFailure) and (
        error.code in REFUSED_CODES or is_disk_full(error)
    )


def is_disk_full(error: PyMongoError) -> bool:
    """Whether the server's disk has no room."""
    code = error.code if isinstance(error, OperationFailure) else None
    return code in DISK_FULL_CODES or DISK_FULL_WORDS in str(error)


def _not_allowed(text: str, at: str) -> str:
    """What a user may not do; the server names the command and the database."""
    command = re.search(r"not authorized on (\S+) to execute command \{ (\w+)", text)
    what = f"`{command[2]}` in the database {command[1]!r}" if command else "this"
    return (
        f"The user of the URI may not do {what} on the MongoDB server{at}: use the URI of a "
        "user who may (a reading user writes nothing), or correct [database] name"
    )


def _no_connection(text: str, uri: str) -> str:
    """Why a server was not reached, with ``{host}`` where that belongs."""
    if re.search(r"[?&;](tls|ssl)=true", uri, re.IGNORECASE):
        what = "a client's certificate: give tlsCertificateKeyFile=FILE in the URI"
    else:
        what = "TLS: add tls=true to the URI, and tlsCAFile=FILE for an authority of your own"
    for pattern, sentence in NO_CONNECTION:
        if re.search(pattern, text):
            return sentence.replace("{what}", what)
    return ANSWERS_NOT
