"""What a campaign is doing now, as plain data: its stage, steps by category, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection
from hullscreen.database.launchpad_state import fireworks_by_state
from hullscreen.workflows.campaign_status import STAGE_NAMES, activity_of
from hullscreen.workflows.report import PURPOSES

# Rows of a panel; the command line shows all.
ROWS_SHOWN = 50
LONGEST_TEXT = 400

Plain = dict[str, Any]


def quick_look(store: CampaignStore, connection: Connection) -> Plain:
    """Numbers that move all the time, from counts that cost the same at any size of the pool.

    Returns
    -------
    ``campaign, elements, finished, paused, cancelled, stage, round, purpose``;
    ``fireworks``: ``{category: {state: number}}``; ``running`` and ``lost``: by category;
    ``lost_steps``: ``fw_id, category, holder, host, seen_at`` of each;
    ``hosts``: number of living steps by host.
    """
    campaign = store.campaign()
    last = store.last_round()
    working = activity_of(connection, campaign)
    return {
        "campaign": store.name,
        "elements": [str(symbol) for symbol in campaign["elements"]],
        "finished": bool(campaign["finished"]),
        "paused": bool(campaign.get("paused")),
        "cancelled": bool(campaign.get("cancelled")),
        "stage": STAGE_NAMES[last.stage] if last else "prototypes",
        "round": last.number if last else None,
        "purpose": last.purpose if last else None,
        "fireworks": fireworks_by_state(connection, store.name),
        "running": dict(Counter(step.category for step in working.alive)),
        "lost": dict(Counter(step.category for step in working.lost)),
        "lost_steps": [
            {
                "firework": step.fw_id,
                "category": step.category,
                "reason": f"its worker {step.holder} on {step.host} has given no sign of life "
                f"since {clock(step.seen_at)}",
            }
            for step in working.lost[:ROWS_SHOWN]
        ],
        "hosts": dict(Counter(step.host for step in working.alive).most_common()),
    }


def job_rows(quick: Mapping[str, Any], status: Mapping[str, Any]) -> list[Plain]:
    """One row per category: ``category``, numbers by state, ``per_hour`` and ``left_s``."""
    rows = []
    timed = status.get("steps", {})
    for category in sorted({*quick["fireworks"], *timed}, key=_in_order):
        counts = quick["fireworks"].get(category, {})
        known = timed.get(category, {})
        rows.append(
            {
                "category": category,
                "waiting": counts.get("WAITING", 0),
                "ready": counts.get("READY", 0),
                "in_queue": counts.get("RESERVED", 0),
                "running": quick["running"].get(category, 0),
                "lost": quick["lost"].get(category, 0),
                "failed": counts.get("FIZZLED", 0),
                "done": counts.get("COMPLETED", 0),
                # A finished campaign has no speed.
                "per_hour": None if quick["finished"] else known.get("per_hour"),
                "left_s": None if quick["finished"] else known.get("left_s"),
            }
        )
    return rows


def jobs_data(quick: Mapping[str, Any], status: Mapping[str, Any]) -> Plain:
    """What the panel of jobs shows.

    Returns
    -------
    ``rows``: see `job_rows`; ``finished, hosts``: as `quick_look` found them;
    ``progress``: of the present round, by kind of work; ``per_minute``: DFT evaluations.
    """
    works = not quick["finished"]
    return {
        "rows": job_rows(quick, status),
        "finished": quick["finished"],
        "hosts": quick["hosts"],
        "progress": status.get("progress", {}) if works else {},
        "per_minute": status.get("dft_evaluations_per_minute") if works else None,
    }


def _in_order(category: str) -> tuple[int, str]:
    """Categories in the order in which a round needs them."""
    known = ("train", "dft", "relax")
    return (known.index(category) if category in known else len(known), category)


def failure_rows(
    quick: Mapping[str, Any], status: Mapping[str, Any], dft: Sequence[Plain]
) -> list[Plain]:
    """Lost steps, failed steps and failed calculations: ``what``, ``reason``, whose log it is.

    A row has a ``firework`` or a ``structure``, whichever it is about.

    Parameters
    ----------
    dft
        As `failed_calculations` gives it.
    """
    rows = [
        {
            "what": f"lost: {lost['category']}",
            "firework": lost["firework"],
            "reason": lost["reason"],
        }
        for lost in quick.get("lost_steps", [])
    ]
    rows += [
        {
            "what": f"failed: {failed['category']}",
            "firework": failed["fw_id"],
            "reason": _short(failed["reason"] or "no reason was recorded"),
        }
        for failed in status.get("failures", [])
    ]
    return [*rows, *dft][:ROWS_SHOWN]


def failed_calculations(store: CampaignStore) -> list[Plain]:
    """DFT calculations of a campaign that failed, as rows: ``what, structure, reason``."""
    return [
        {
            "what": f"DFT to {failed.purpose}",
            "structure": failed.structure_index,
            "reason": _short(failed.reason),
        }
        for failed in store.failed_dft()
        if failed.purpose in PURPOSES
    ]


def _short(text: Any) -> str:
    said = str(text)
    return said if len(said) <= LONGEST_TEXT else f"{said[: LONGEST_TEXT - 1]}…"


def clock(moment: datetime) -> str:
    """A time as people read it, UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
