"""Where results come from: campaign, settings, versions and seed, for every file that leaves it.

What describes a machine and not the result stays at home: addresses of databases, the cluster's
options, and the folders in which programs and files lie.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import now
from hullscreen.database.schema import program_version, stored_version

LIBRARIES = ("numpy", "scipy", "spglib", "pymatgen", "ase")
# Tables of settings that are about machines.
PRIVATE_TABLES = ("database", "launch")
# Absolute folders, those below a home, and whatever has the scheme of an address before it.
_FOLDERS = re.compile(
    r"\w+://[^\s/'\"]*/?(?:[^\s/'\"]+/)*"
    r"|'(?:~\w*)?/(?:[^/']+/)*(?=[^/']*')"
    r"|\"(?:~\w*)?/(?:[^/\"]+/)*(?=[^/\"]*\")"
    r"|(?<![\w./~])(?:~\w*)?/(?:[^/\s'\"]+/)*"
)


def provenance(store: CampaignStore) -> dict[str, Any]:
    """Everything that is needed to compute the campaign's results again, as plain JSON.

    Returns
    -------
    ``campaign``, ``chemsys``, ``elements``, ``finished`` (whether its hull is final), ``seed`` of
    its random numbers, ``settings`` (the tables of ``hullscreen.toml``), ``dft_engine`` (name,
    fingerprint, and the content that this is of), ``versions`` of programs, ``schema_version`` of
    its documents, ``started_at`` and ``exported_at``. No address, password or folder is in it.

    Raises
    ------
    CampaignError
        The database does not hold the campaign.
    """
    campaign = store.campaign()
    settings = {
        table: without_folders(keys)
        for table, keys in campaign["settings"].items()
        if table not in PRIVATE_TABLES
    }
    engine = campaign["engine"]
    return {
        "program": "hullscreen",
        "campaign": campaign["name"],
        "chemsys": campaign["chemsys"],
        "elements": list(campaign["elements"]),
        "finished": bool(campaign["finished"]),
        "seed": settings["campaign"]["seed"],
        "dft_engine": {
            "name": engine["name"],
            "fingerprint": engine["fingerprint"],
            "content": without_folders(engine["content"]),
        },
        "versions": {
            "hullscreen": program_version(),
            "python": platform.python_version(),
            **{library: version(library) for library in LIBRARIES},
        },
        "schema_version": stored_version(store.connection),
        "started_at": campaign["created_at"].isoformat(timespec="seconds"),
        "exported_at": now().isoformat(timespec="seconds"),
        "settings": settings,
    }


def without_folders(value: Any) -> Any:
    """A setting whose texts name programs and files without the folders they lie in.

    Examples
    --------
    >>> without_folders({"command": "mpirun -np 4 /opt/qe/bin/pw.x"})
    {'command': 'mpirun -np 4 pw.x'}
    """
    if isinstance(value, str):
        return _FOLDERS.sub(_quote_of, value)
    if isinstance(value, Mapping):
        return {str(key): without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    return value


def _quote_of(folders: re.Match[str]) -> str:
    """What stays of folders: the mark of quotation before them."""
    return folders[0][0] if folders[0][0] in "'\"" else ""
