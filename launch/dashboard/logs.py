"""Logs of a structure or a Firework for the page: lines of text, confined to the campaign."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.launch.campaign_session import Session
from hullscreen.launch.dashboard.answers import BadRequestError
from hullscreen.launch.log_text import (
    about_calculation,
    about_job,
    about_structure,
    title_of_calculation,
    title_of_job,
)
from hullscreen.workflows.calculation_logs import firework_log, structure_log
from hullscreen.workflows.output_tails import safe_line

LINES_OF_A_FILE = 200
MOST_LINES = 3000
# A number of a structure or a Firework fits into 64 bits.
NUMBER = re.compile(r"[0-9]{1,18}")
OWN_FOLDER = "calculations"


@dataclass(frozen=True)
class Log:
    """What the page shows.

    Attributes
    ----------
    title
        What it is the log of.
    lines
        Text; nothing in it is obeyed by a browser or a terminal.
    """

    title: str
    lines: list[str]


def read_log(session: Session, asked: Mapping[str, str]) -> Log:
    """The log that a request asks for.

    Parameters
    ----------
    asked
        Arguments of the request: ``structure`` or ``firework``, one of them.

    Raises
    ------
    BadRequestError
        Neither or both are given, or it is no number.
    InputError
        The campaign has no such structure or Firework.
    """
    kinds = [kind for kind in ("structure", "firework") if kind in asked]
    if len(kinds) != 1:
        raise BadRequestError("expected ?structure=N or ?firework=N")
    (kind,) = kinds
    if not NUMBER.fullmatch(asked[kind]):
        raise BadRequestError(f"expected a number of at most 18 digits as {kind}")
    number = int(asked[kind])
    root, remarks = _folder(session)
    if kind == "structure":
        found = structure_log(session.store, number, n_lines=LINES_OF_A_FILE, root=root)
        title = f"Structure {number}, {safe_line(str(found['formula_pretty']))}"
    else:
        found = firework_log(session.store, number, n_lines=LINES_OF_A_FILE, root=root)
        title = f"Step {number}, {safe_line(str(found['jobs'][0]['name']))}"
    lines = [*remarks, *(safe_line(line) for line in _lines(found))]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES:,} more lines"]
    return Log(title, lines)


def _folder(session: Session) -> tuple[Path, list[str]]:
    """Folder of the calculations, inside the campaign's directory, and what to say of it.

    What the database names may lead anywhere: who can write there could otherwise read any file
    of whoever started the dashboard.
    """
    named, own = Path(_named_folder(session.store)), session.directory.resolve()
    if named.resolve().is_relative_to(own):
        return named, []
    remark = (
        "The folder of the calculations that the database names is not inside the campaign's "
        "directory: files are not shown here (`hullscreen logs` shows them)."
    )
    # Nothing is read where this does not lead to a folder of the campaign's either.
    fallback = own / OWN_FOLDER
    return fallback if fallback.resolve().is_relative_to(own) else own / ".nowhere", [remark]


def _named_folder(store: CampaignStore) -> str:
    named = store.campaign().get("directory", "")
    # A name with a zero byte is none that a file system knows.
    return "/" if not isinstance(named, str) or "\0" in named else named


def _lines(log: dict[str, Any]) -> Iterator[str]:
    if "structure_index" in log:
        yield from about_structure(log)
    for calculation in log["calculations"]:
        yield title_of_calculation(calculation)
        yield from (f"  {line}" for line in about_calculation(calculation))
        for file in calculation["files"]:
            yield f"  {Path(file['path']).name} ({file['size']:,} bytes), its end:"
            yield from (f"    {line}" for line in file["lines"])
    for job in log["jobs"]:
        yield title_of_job(job)
        yield from (f"  {line}" for line in about_job(job))
        yield from (f"    {line}" for line in job["trace"])
