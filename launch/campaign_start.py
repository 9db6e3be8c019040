"""How `hullscreen run` and `launch` begin: alone, and with what an earlier one has left."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from fireworks import LaunchPad

from hullscreen.database.supervisors import SignsOfLife, Supervisor
from hullscreen.launch import campaign_outcome
from hullscreen.launch.campaign_progress import CampaignProgress
from hullscreen.launch.campaign_session import Session
from hullscreen.launch.directory_lock import only_one
from hullscreen.launch.launchpad_file import write_launchpad_file
from hullscreen.launch.progress import Board
from hullscreen.workflows import recovery
from hullscreen.workflows.campaign import Campaign, register
from hullscreen.workflows.campaign_control import begin_work
from hullscreen.workflows.decisions import reopen
from hullscreen.workflows.flows import prepare_launchpad, submit_campaign
from hullscreen.workflows.holding import worker_name
from hullscreen.workflows.publishing import publish_hull
from hullscreen.workflows.worker import launchpad_on


@contextmanager
def at_work(
    session: Session, command: str, options: Sequence[str] = ()
) -> Iterator[tuple[Campaign, LaunchPad]]:
    """The campaign and its LaunchPad for the only supervisor of its directory.

    Parameters
    ----------
    command
        Which one it is: ``run`` or ``launch``.
    options
        What it was started with and is to be called again with.

    Raises
    ------
    CampaignError
        Another supervisor is at work, the campaign is paused, or the database holds one of this
        name with other settings.
    DFTError
        The engine cannot compute these elements.
    """
    with only_one(session.directory, command):
        begin_work(session.store, session.directory)
        campaign, launchpad = prepare(session)
        supervisor = Supervisor(
            command, tuple(options), worker_name(), socket.gethostname(), os.getpid()
        )
        signs = SignsOfLife(session.connection, session.store.name)
        with closing(launchpad.connection), _alive(signs, supervisor, campaign.heartbeat_s):
            yield campaign, launchpad


@contextmanager
def _alive(signs: SignsOfLife, supervisor: Supervisor, heartbeat_s: float) -> Iterator[None]:
    """Give signs of life for as long as the block lasts, also while it waits for a queue."""
    ended = threading.Event()

    def keep_alive() -> None:
        while not ended.wait(heartbeat_s):
            signs.give(supervisor)

    signs.begin(supervisor)
    thread = threading.Thread(target=keep_alive, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # Its last sign must not come after the end.
        thread.join()
        signs.end(supervisor)


def prepare(session: Session) -> tuple[Campaign, LaunchPad]:
    """Register the campaign, make the LaunchPad usable, and write FireWorks' file for users.

    Raises
    ------
    CampaignError
        The database holds a campaign of this name with other settings.
    DFTError
        The engine cannot compute these elements.
    """
    campaign = Campaign(
        session.settings,
        session.store,
        session.directory / "calculations",
        heartbeat_s=session.settings.launch.heartbeat_s,
    )
    register(campaign)
    launchpad = launchpad_on(session.connection.uri, session.connection.name)
    prepare_launchpad(launchpad)
    write_launchpad_file(session.directory, session.settings.database)
    return campaign, launchpad


def in_passes(
    session: Session, campaign: Campaign, launchpad: LaunchPad, one_pass: Callable[[], None]
) -> None:
    """Call what brings a campaign to its hull, as often as there is something to do.

    A hull that is there is left alone, unless jobs say nothing about their structures or labels
    have been computed anew that nobody has learnt from.
    """
    # A command that was killed may have left documents that say what counts no longer.
    publish_hull(session.store)
    done = campaign_outcome.is_done(session, launchpad)
    if not done or campaign_outcome.lacking(launchpad, campaign):
        one_pass()
    if session.store.new_labels() > 0:
        one_pass()


def begin_pass(
    session: Session, campaign: Campaign, launchpad: LaunchPad, board: Board, n_dft_workers: int
) -> CampaignProgress:
    """Let failed steps run again, and put what comes next into the LaunchPad.

    Parameters
    ----------
    n_dft_workers
        Processes or jobs that do DFT.

    Returns
    -------
    What shows how far the campaign is; it has said what a new one will cost.
    """
    recovery.retry_failed(launchpad, campaign, all_steps=True)
    if session.store.campaign()["finished"] and recovery.is_idle(launchpad, session.store):
        n_new = session.store.new_labels()
        board.note(
            f"{n_new} labels of jobs that were run again, or changed by hand, are learnt, and "
            "everything is screened once more"
        )
        reopen(campaign)
    recovery.resubmit(launchpad, campaign)
    submit_campaign(launchpad, campaign)
    progress = CampaignProgress(campaign, board, n_dft_workers)
    progress.begin()
    return progress
