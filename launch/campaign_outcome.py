"""Whether a campaign is finished or cannot go on, and what is said of it then."""

from __future__ import annotations

from pathlib import Path

from fireworks import LaunchPad

from hullscreen.database.connection import SERVER_AWAY
from hullscreen.launch.campaign_session import Session
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows import recovery
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.flows import DFT

TAKEN_OUT_SHOWN = 20


def is_done(session: Session, launchpad: LaunchPad) -> bool:
    """Whether the hull is there, and no step that a user lets run once more is left."""
    if not session.store.campaign()["finished"]:
        return False
    try:
        return recovery.is_idle(launchpad, session.store)
    except SERVER_AWAY:
        return False


def lacking(launchpad: LaunchPad, campaign: Campaign) -> list[recovery.Failure]:
    """DFT jobs that failed for want of an engine, a file or room, not because of a structure."""
    failed = recovery.failures(launchpad, campaign)
    return [one for one in failed if recovery.ENGINE_MISSING in one.reason]


def remarks(launchpad: LaunchPad, campaign: Campaign, directory: Path, command: str) -> list[str]:
    """What a finished campaign has left out, in sentences.

    Parameters
    ----------
    directory, command
        Of the campaign, and what computes the rest: ``run`` or ``launch``.
    """
    sentences = []
    failed = recovery.failures(launchpad, campaign)
    if failed:
        sentences.append(
            f"{len(failed)} DFT jobs failed and their structures were left out; "
            f"`hullscreen status {directory}` says why, and `hullscreen rerun {directory} "
            "--failed` tries them again"
        )
    missed = lacking(launchpad, campaign)
    if missed:
        sentences.append(
            f"{len(missed)} of these jobs say nothing about their structures, and the next "
            f"`hullscreen {command}` computes them: {_sentence(missed[0])}"
        )
    return sentences


def cancelled(session: Session, command: str) -> CampaignError:
    """How ``run`` or ``launch`` ends once somebody has cancelled the campaign."""
    return CampaignError(
        f"campaign {session.store.name!r} was cancelled; everything computed is kept, and "
        f"`hullscreen {command}` goes on with it"
    )


def stuck(launchpad: LaunchPad, campaign: Campaign) -> CampaignError:
    """Why nothing of a campaign can be done though it is not finished."""
    failed = recovery.failures(launchpad, campaign)
    stopped = [one for one in failed if one.category != DFT] or failed
    rounds = {one.round for one in stopped}
    missed = [one for one in lacking(launchpad, campaign) if one.round in rounds]
    if missed:
        return CampaignError(
            f"{len(missed)} DFT jobs could not be done, and the campaign cannot do without them: "
            f"{_sentence(missed[0])}; mend it and run again"
        )
    if stopped:
        last = stopped[-1]
        return CampaignError(f"the step {last.name!r} failed: {_sentence(last)}")
    taken_out = recovery.taken_out(launchpad, campaign)
    if taken_out:
        numbers = " ".join(map(str, taken_out[:TAKEN_OUT_SHOWN]))
        n_taken_out = "1 step was" if len(taken_out) == 1 else f"{len(taken_out)} steps were"
        return CampaignError(
            f"{n_taken_out} defused or paused by hand; in {campaign.directory.parent} "
            f"`lpad reignite_fws -i {numbers}` or `lpad resume_fws -i {numbers}` lets them go on"
        )
    return CampaignError(
        "nothing of this campaign can run, and nothing failed; run again, and if that does not "
        "help, look at `lpad get_wflows`"
    )


def _sentence(failure: recovery.Failure) -> str:
    """The reason without the name of the exception."""
    return failure.reason.partition(": ")[2] or failure.reason
