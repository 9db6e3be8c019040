"""Where a campaign's MongoDB is, and ``my_launchpad.yaml``, which tells FireWorks' own commands."""

import json
import re
from pathlib import Path

from hullscreen.database.addresses import host_of, resolve
from hullscreen.database.embedded_server import embedded_uri
from hullscreen.launch.atomic_files import write_atomically
from hullscreen.workflows.settings_tree import Database

FILE_NAME = "my_launchpad.yaml"
# FireWorks reads its settings from the working directory, or from where a variable says.
FIREWORKS_SETTINGS = Path(__file__).with_name("FW_config.yaml")
FIRST_LINE = "# Written by hullscreen from hullscreen.toml; remove this line to keep your own."


def given_uri(database: Database, directory: Path) -> str | None:
    """Address that the user gave; None for the embedded server.

    Raises
    ------
    InputError
        The file named by ``uri_file`` is missing, empty, or readable by others.
    """
    uri_file = Path(database.uri_file).expanduser() if database.uri_file else None
    return resolve(directory, database.uri, uri_file)


def other_server(directory: Path) -> str:
    """Host that ``my_launchpad.yaml`` names, if that is a server of the user's; empty if not."""
    path = directory / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.search(r'^host: "(mongodb[^"]*)"$', text, re.MULTILINE)
    host = host_of(found[1]) if found and text.startswith(FIRST_LINE) else ""
    # One of a campaign's own listens at a file.
    return "" if host.startswith("/") else host


def write_launchpad_file(directory: Path, database: Database) -> bool:
    """Write ``my_launchpad.yaml`` unless the user has one of their own there.

    Beside it goes a ``FW_config.yaml`` with which FireWorks' commands do not wait for locks of
    processes that are gone.

    Returns
    -------
    Whether the file is ours and now tells the address of ``database``.

    Notes
    -----
    Only its owner may read it: the address may hold a password.
    """
    path = directory / FILE_NAME
    first = FIRST_LINE.encode()
    if path.exists() and not path.read_bytes().startswith(first):
        return False
    uri = given_uri(database, directory)
    hint = (
        ""
        if uri
        else "# The server runs during `hullscreen run` and after `hullscreen db start`.\n"
    )
    text = (
        f"{FIRST_LINE}\n{hint}"
        f"host: {json.dumps(uri or embedded_uri(directory))}\n"
        f"name: {json.dumps(database.name)}\n"
        "uri_mode: true\n"
        "mongoclient_kwargs: {serverSelectionTimeoutMS: 10000}\n"
    )
    write_atomically(path, text, mode=0o600)
    settings = directory / FIREWORKS_SETTINGS.name
    if not settings.exists():
        write_atomically(settings, FIREWORKS_SETTINGS.read_text(encoding="utf-8"))
    return True
