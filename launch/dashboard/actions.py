"""What the dashboard may change when it was started with ``--allow-actions``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from hullscreen.launch.campaign_session import Session
from hullscreen.launch.dashboard.answers import BadRequestError
from hullscreen.launch.rerun_said import next_step, what_was_done
from hullscreen.launch.steps_said import resumed, under_way
from hullscreen.workflows import campaign_control
from hullscreen.workflows.rerun import failed_fireworks_of, run_again
from hullscreen.workflows.worker import launchpad_on

LARGEST_NUMBER = 2**63 - 1


def rerun(session: Session, asked: Mapping[str, Any]) -> str:
    """Let a failed Firework run once more, as `hullscreen rerun DIR --firework N` does.

    Raises
    ------
    BadRequestError
        ``asked`` is something else than ``{"firework": N}``.
    InputError
        The Firework has not failed, or is not of this campaign.
    """
    number = asked.get("firework")
    if set(asked) != {"firework"} or type(number) is not int or not 0 < number <= LARGEST_NUMBER:
        raise BadRequestError('expected {"firework": N} with the number of a step that failed')
    jobs = failed_fireworks_of(session.store, [number])
    launchpad = launchpad_on(session.connection.uri, session.connection.name)
    with closing(launchpad.connection):
        result = run_again(launchpad, session.store, jobs)
    sentences = what_was_done(result, session.directory)
    if result.again:
        sentences.append(next_step(session, session.directory))
    return " ".join(sentences)


def pause(session: Session, asked: Mapping[str, Any]) -> str:
    """Let workers finish what they hold and take nothing new.

    Raises
    ------
    BadRequestError
        ``asked`` is not empty.
    CampaignError
        The campaign is finished or cancelled.
    """
    _expect_nothing(asked)
    return f"Paused: {under_way(campaign_control.pause(session.store))}."


def resume(session: Session, asked: Mapping[str, Any]) -> str:
    """Let workers take steps again.

    Raises
    ------
    BadRequestError
        ``asked`` is not empty.
    CampaignError
        The campaign is neither paused nor cancelled.
    """
    _expect_nothing(asked)
    before = session.store.campaign()
    campaign_control.resume(session.store)
    return resumed(before, session.directory)


ACTIONS: dict[str, Callable[[Session, Mapping[str, Any]], str]] = {
    "rerun": rerun,
    "pause": pause,
    "resume": resume,
}
"""By the last part of the address to which the page posts."""


def _expect_nothing(asked: Mapping[str, Any]) -> None:
    if asked:
        raise BadRequestError("expected {}: this needs no more than the name of the campaign")
