"""How a campaign goes on: by the command that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hullscreen.database.supervisors import supervisor_of


def going_on(campaign: Mapping[str, Any], directory: Path) -> str:
    """The command line that brings a campaign to its hull.

    Parameters
    ----------
    campaign
        Its document.

    Examples
    --------
    ``hullscreen run cu-pd``, or ``hullscreen launch cu-pd --queue slurm``
    """
    last = supervisor_of(campaign)
    if last is None:
        return command_line("run", (), directory)
    return command_line(last.command, last.options, directory)


def command_line(command: str, options: tuple[str, ...] | list[str], directory: Path) -> str:
    """A command of hullscreen as a person types it."""
    return " ".join(["hullscreen", command, str(directory), *options])
