"""Pausing, resuming and cancelling a campaign: marks in its document that every worker reads.

Nothing that was computed is touched, so `resume` undoes both of the others.
"""

from __future__ import annotations

from pathlib import Path

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows.campaign_status import Activity, activity_of


def pause(store: CampaignStore) -> Activity:
    """Let workers finish what they hold and take nothing new; tells what is under way.

    Raises
    ------
    CampaignError
        The campaign is finished, or cancelled.
    """
    campaign = store.campaign()
    if campaign["finished"]:
        raise CampaignError(f"campaign {store.name!r} is finished: there is nothing to pause")
    if campaign.get("cancelled"):
        raise CampaignError(f"campaign {store.name!r} is cancelled: nobody works on it")
    store.set_campaign(paused=True)
    return activity_of(store.connection, campaign)


def resume(store: CampaignStore) -> Activity:
    """Let workers take steps again after `pause` or `cancel`; tells what is under way.

    Raises
    ------
    CampaignError
        The campaign is neither paused nor cancelled.
    """
    campaign = store.campaign()
    if not (campaign.get("paused") or campaign.get("cancelled")):
        raise CampaignError(f"campaign {store.name!r} is neither paused nor cancelled")
    store.set_campaign(paused=False, cancelled=False)
    return activity_of(store.connection, campaign)


def cancel(store: CampaignStore) -> Activity:
    """Let workers give back what they hold and end; tells what is under way.

    A pause ends with it: whoever goes on after this does so by a command.

    Raises
    ------
    CampaignError
        The campaign is finished.
    """
    campaign = store.campaign()
    if campaign["finished"]:
        raise CampaignError(f"campaign {store.name!r} is finished: there is nothing to cancel")
    store.set_campaign(cancelled=True, paused=False)
    return activity_of(store.connection, campaign)


def begin_work(store: CampaignStore, directory: Path) -> None:
    """What `run` and `launch` do first: go on after `cancel`, and refuse to after `pause`.

    Raises
    ------
    CampaignError
        The campaign is paused; the sentence tells how to resume.
    """
    campaign = store.find_campaign()
    if campaign is None:
        return
    if campaign.get("paused"):
        raise CampaignError(
            f"campaign {store.name!r} is paused; `hullscreen resume {directory}` lets it go on"
        )
    if campaign.get("cancelled"):
        store.set_campaign(cancelled=False)
