"""Addresses of MongoDB servers: where they come from, and how to show them without their secrets.

An address with a password comes from a file that nobody else may read or from the environment,
never from a command line, which every user of the machine sees.
"""

import os
import re
import stat
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from hullscreen.potentials.errors import InputError

URI_VARIABLE = "HULLSCREEN_DB_URI"
LONGEST_URI = 65536
SCHEMES = ("mongodb://", "mongodb+srv://")
# Options that name files, given relative to the project's directory: processes of a campaign work
# in other directories.
FILE_OPTIONS = {"tlscafile", "tlscertificatekeyfile", "tlscrlfile"}
# How somebody logs in; another user's address has none of it.
LOGIN_OPTIONS = {
    "authmechanism",
    "authmechanismproperties",
    "authsource",
    "tlscertificatekeyfile",
    "tlscertificatekeyfilepassword",
}
_BEFORE_SECRETS = r"[?&;](?:[A-Za-z]*password|[A-Za-z]*token|authMechanismProperties)="


def resolve(
    project_directory: Path, uri: str | None = None, uri_file: Path | None = None
) -> str | None:
    """URI of the server to use, from the first source that names one; None for the embedded server.

    Parameters
    ----------
    project_directory
        What a relative ``uri_file`` is relative to, and certificate files that the URI names.
    uri
        URI as given; empty or None for none.
    uri_file
        File that holds the URI on its first line and that nobody but its owner may read.

    Raises
    ------
    InputError
        The file is missing, empty, no file, another user's, or readable by others; or what it or
        another source holds does not begin as an address does.

    Notes
    -----
    After both, the environment variable ``HULLSCREEN_DB_URI`` counts.
    """
    source = "it"
    if not uri and uri_file is not None:
        path = project_directory / uri_file.expanduser()
        uri, source = read_uri(path), f"the first line of {path}"
    if not uri:
        uri, source = os.environ.get(URI_VARIABLE), f"the variable {URI_VARIABLE}"
    if uri and not uri.startswith(SCHEMES):
        raise InputError(not_usable(uri, f"{source} does not begin with {SCHEMES[0]}"))
    return _with_whole_paths(uri, project_directory) if uri else None


def not_usable(uri: str, problem: str) -> str:
    """Sentence for an address that is none; what may be a password is not shown."""
    shown = without_login(uri) if "@" in uri or uri.startswith(SCHEMES) else "***"
    return (
        f"{shown} is no usable MongoDB URI ({problem}): expected "
        "mongodb://user:password@host:port/?option=value, special characters percent-encoded"
    )


def read_uri(path: Path) -> str:
    """The address on the first line of a file that only its owner may read.

    Raises
    ------
    InputError
        The file is missing, empty, no file, another user's, or readable by others.
    """
    try:
        # Opening a FIFO would wait for whoever writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            regular = stat.S_ISREG(found.st_mode)
            text = os.read(descriptor, LONGEST_URI).decode() if regular else ""
        finally:
            os.close(descriptor)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(
            f"the file with the MongoDB URI, {path}, cannot be read: {reason}"
        ) from error
    if not regular:
        raise InputError(f"{path} should be a file with a MongoDB URI in it, and it is no file")
    mode = stat.S_IMODE(found.st_mode)
    line = text.partition("\n")[0].strip()
    if found.st_uid != os.geteuid():
        raise InputError(
            f"{path} holds a MongoDB URI and belongs to user {found.st_uid}, not to you "
            f"({os.geteuid()}), who could change where your data go: make a copy of your own"
        )
    if mode & 0o077:
        raise InputError(
            f"{path} holds a MongoDB URI and its mode is {mode:04o}, so others may read the "
            f"password: run `chmod 600 {path}`"
        )
    if not line:
        raise InputError(f"{path} should hold a MongoDB URI on its first line, which is empty")
    return line


def has_secret(uri: str) -> bool:
    """Whether an address holds a password or a token; a malformed one counts if it may.

    Examples
    --------
    >>> has_secret("mongodb://ann:secret@db.example.org"), has_secret("mongodb://ann@db.example.org")
    (True, False)
    """
    login, at, _ = uri.partition("://")[2].rpartition("@")
    return bool(at and ":" in login) or bool(re.search(_BEFORE_SECRETS, uri, re.IGNORECASE))


def host_of(uri: str) -> str:
    """Hosts of a URI as a person would write them, with nothing of the login.

    Examples
    --------
    >>> host_of("mongodb://ann:secret@db.example.org:27017/?tls=true")
    'db.example.org:27017'
    """
    return unquote(re.split(r"[/?]", redact(uri).partition("://")[2].rpartition("@")[2])[0])


def redact(text: str) -> str:
    """Text with the logins and secret options of all MongoDB URIs in it replaced by ``***``.

    Examples
    --------
    >>> redact("mongodb://ann:secret@db.example.org/?tls=true")
    'mongodb://***@db.example.org/?tls=true'
    """
    # Up to the last @ before a blank or quote: malformed URIs have unescaped @ or / in passwords.
    without_login = re.sub(r"""([A-Za-z][\w+.-]*://)[^\s"'<>]*@""", r"\1***@", text)
    return re.sub(
        rf"""({_BEFORE_SECRETS})[^&;\s"'<>]+""", r"\1***", without_login, flags=re.IGNORECASE
    )


def without_login(uri: str) -> str:
    """One address, perhaps malformed, without its login and secret options.

    Examples
    --------
    >>> without_login("mongodb://ann:my secret@db.example.org"), without_login("ann:secret@db")
    ('mongodb://***@db.example.org', '***@db')
    """
    login, at, rest = uri.rpartition("@")
    scheme = re.match(r"[A-Za-z][\w+.-]*://", login)
    return redact(f"{scheme[0] if scheme else ''}***@{rest}" if at else uri)


def with_login(uri: str, user: str, password: str, database: str) -> str:
    """The same server with the login of a user that a database holds.

    Examples
    --------
    >>> with_login("mongodb://root:x@db.example.org/?tls=true&authSource=admin", "ann", "p/w", "cu")
    'mongodb://ann:p%2Fw@db.example.org/?tls=true&authSource=cu'
    """
    scheme, _, rest = uri.partition("://")
    # A login ends at the last @ before the options: an option may hold one as well.
    address, _, options = rest.partition("?")
    hosts = address.rpartition("@")[2].partition("/")[0]
    kept = [
        (name, value)
        for name, value in parse_qsl(options, keep_blank_values=True)
        if name.lower() not in LOGIN_OPTIONS
    ]
    query = urlencode([*kept, ("authSource", database)], safe="/:,")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{hosts}/?{query}"


def _with_whole_paths(uri: str, directory: Path) -> str:
    """The URI with certificate files named from the root of the file system."""
    head, mark, options = uri.partition("?")

    def whole(option: str) -> str:
        name, equals, value = option.partition("=")
        if name.lower() not in FILE_OPTIONS or not value:
            return option
        path = directory.resolve() / Path(unquote(value)).expanduser()
        return f"{name}{equals}{quote(str(path))}"

    return (
        head
        + mark
        + "".join(part if part in "&;" else whole(part) for part in re.split(r"([&;])", options))
    )
