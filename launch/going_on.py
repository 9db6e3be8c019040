"""How a campaign goes on: by the command that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
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


def learning_again(campaign: Mapping[str, Any], directory: Path) -> str:
    """What follows when DFT results were changed by hand, as the end of a sentence."""
    return f"`{going_on(campaign, directory)}` learns and screens once more."


def what_is_due(store: CampaignStore, directory: Path) -> str:
    """Why a finished campaign is to be run again, in a sentence; empty if there is no reason."""
    campaign = store.campaign()
    if not campaign["finished"] or store.new_labels() <= 0:
        return ""
    again = learning_again(campaign, directory)
    return f"DFT results have changed since everything was screened: {again}"


def command_line(command: str, options: tuple[str, ...] | list[str], directory: Path) -> str:
    """A command of hullscreen as a person types it."""
    return " ".join(["hullscreen", command, str(directory), *options])
