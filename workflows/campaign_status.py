"""How far a campaign is and who is at it, from a few counts: quick at any size of the pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from hullscreen.database import activity
from hullscreen.database.activity import StepUnderWay
from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection
from hullscreen.database.launchpad_state import (
    completed_since,
    failed_fireworks,
    fireworks_by_state,
    newest_intervals,
)
from hullscreen.database.round_documents import RoundDocument
from hullscreen.workflows.failure_groups import DFT, grouped
from hullscreen.workflows.holding import is_gone
from hullscreen.workflows.time_left import busy_seconds, calculations_left_s, steps_left_s
from hullscreen.workflows.workers_and_jobs import (
    jobs_with_states,
    queue_counts,
    steps_at_work,
    supervisor_status,
)

STAGE_NAMES = {1: "screen_1", 2: "screen_2", 3: "final"}
CATEGORIES = ("relax", "train", DFT)
FAILURES_SHOWN = 20
# Reasons are looked up of so many failed steps, the newest ones.
FAILURES_GROUPED = 1000
HEARTBEAT_S = 10.0
# As those do who take lost steps back.
HEARTBEATS_UNTIL_LOST = 3
# Rates are those of the last hour, times those of as many steps as were completed last.
RATE_WINDOW = timedelta(hours=1)
STEPS_TIMED = 50
Progress = dict[str, dict[str, int | None]]
# In FireWorks' words, what is still to be done; RESERVED steps wait in a queue.
NOT_BEGUN = ("WAITING", "READY", "RESERVED")


@dataclass(frozen=True)
class Activity:
    """What is known of the steps under way.

    Attributes
    ----------
    now
        The server's time.
    alive, lost
        Steps whose workers give signs of life, and steps whose workers do not.
    """

    now: datetime
    alive: Sequence[StepUnderWay]
    lost: Sequence[StepUnderWay]

    def of(self, category: str) -> list[StepUnderWay]:
        """Steps of a category whose workers give signs of life."""
        return [step for step in self.alive if step.category == category]


def activity_of(connection: Connection, campaign: Mapping[str, Any]) -> Activity:
    """Who is at work on a campaign.

    Parameters
    ----------
    campaign
        Its document.
    """
    now = activity.server_time(connection)
    last_moment = now - timedelta(seconds=HEARTBEATS_UNTIL_LOST * _heartbeat_s(campaign))
    steps = activity.steps_under_way(connection, campaign["name"])
    lost = [step for step in steps if step.seen_at < last_moment or is_gone(step.holder)]
    return Activity(now, [step for step in steps if step not in lost], lost)


def _heartbeat_s(campaign: Mapping[str, Any]) -> float:
    return float(campaign.get("heartbeat_s", HEARTBEAT_S))


def campaign_status(store: CampaignStore, connection: Connection) -> dict[str, Any]:
    """Stage, round, progress, steps by category, workers, queue and failures, as plain JSON.

    Parameters
    ----------
    connection
        To the database that also holds FireWorks' collections.

    Returns
    -------
    ``campaign, chemsys, elements, finished, paused, cancelled, last_updated``;
    ``took_s``: of a finished campaign, the time until its last step ended;
    ``stage, round, purpose``: of the present round, None before the first;
    ``progress``: ``done`` and ``total`` by kind of work of the present round, and of DFT how many
    of the former ``failed``;
    ``structures``: by the stage they have reached;
    ``fireworks``: ``{category: {state: number}}`` in FireWorks' words;
    ``steps``: by category the numbers ``waiting, ready, running, lost, failed, done``, of which
    the running ones have a living worker and the lost ones none, ``per_hour``, the number done in
    the last hour or since the start, and ``left_s``, how long the round's will take; None where
    that is unknown;
    ``left_s``: of all categories, None where one is unknown;
    ``rate_window_s, dft_evaluations_per_minute``: the last hour or since the start, and the rate;
    ``workers``: ``alive``, the number of steps with a living worker, ``hosts`` with theirs, and
    ``steps``, each with its job in the queue and its age;
    ``supervisor``: the last `run` or `launch`, and whether it is ``alive``; None if there was none;
    ``queue``: jobs in the queue by category, ``jobs`` and how many of them are ``at_work`` or
    ``waiting``; ``jobs``: each of them, with the reason for which it waits;
    ``n_reclaimed``: steps that were taken back from workers that were lost;
    ``n_quarantined``: DFT results that cannot be right and were put aside;
    ``doubts``: by round, why labels that look wrong were learnt nevertheless;
    ``n_failed, failure_groups``: failed steps, and the newest 1,000 of them by reason;
    ``failures``: FIZZLED Fireworks with a one-line reason, the newest 20.
    """
    campaign = store.campaign()
    last = store.last_round()
    states = fireworks_by_state(connection, store.name)
    working = activity_of(connection, campaign)
    asked = activity.selected_keys(connection, store.name)
    progress = _progress(store, campaign["pool"], last, asked)
    window = min(RATE_WINDOW, working.now - campaign["created_at"])
    steps = _steps(connection, campaign, states, working, window)
    stopped = campaign.get("paused") or campaign.get("cancelled")
    if last is not None and working.of(DFT) and not stopped:
        steps[DFT]["left_s"] = _dft_left_s(connection, last, working, progress)
    failed = failed_fireworks(connection, store.name, limit=FAILURES_GROUPED)
    evaluations = activity.dft_since(connection, store.name, working.now - window).evaluations
    jobs = jobs_with_states(activity.jobs_in_queue(connection, store.name), working.alive)
    return {
        "campaign": store.name,
        "chemsys": campaign["chemsys"],
        "elements": list(campaign["elements"]),
        "finished": campaign["finished"],
        "took_s": _took_s(connection, campaign) if campaign["finished"] else None,
        "paused": bool(campaign.get("paused")),
        "cancelled": bool(campaign.get("cancelled")),
        "last_updated": campaign["last_updated"].isoformat(),
        "stage": STAGE_NAMES[last.stage] if last else "prototypes",
        "round": last.number if last else None,
        "purpose": last.purpose if last else None,
        "progress": progress,
        "structures": {
            STAGE_NAMES[stage]: n for stage in STAGE_NAMES if (n := store.count(stage=stage))
        },
        "fireworks": states,
        "steps": steps,
        "left_s": _all_left_s(steps, working),
        "rate_window_s": window.total_seconds(),
        "dft_evaluations_per_minute": _per(evaluations, window, timedelta(minutes=1)),
        "workers": {
            "alive": len(working.alive),
            "hosts": dict(Counter(step.host for step in working.alive).most_common()),
            "steps": steps_at_work(working.alive, working.now),
        },
        "supervisor": supervisor_status(campaign, working.now, _heartbeat_s(campaign)),
        "queue": queue_counts(jobs),
        "jobs": jobs,
        "n_reclaimed": int(campaign.get("n_reclaimed", 0)),
        "n_quarantined": activity.count_results(
            connection, [*chain.from_iterable(asked.values()), *store.final_keys()], "quarantined"
        ),
        "doubts": campaign.get("doubts", {}),
        "n_failed": sum(counts.get("FIZZLED", 0) for counts in states.values()),
        "failure_groups": [asdict(group) for group in grouped(failed, campaign["elements"])],
        "failures": [asdict(one) for one in failed[:FAILURES_SHOWN]],
    }


def _steps(
    connection: Connection,
    campaign: Mapping[str, Any],
    states: Mapping[str, Mapping[str, int]],
    working: Activity,
    window: timedelta,
) -> dict[str, dict[str, Any]]:
    """Numbers and speed of the steps by category."""
    categories = sorted({*CATEGORIES, *states}) if states else []
    since = working.now - window
    completed = completed_since(connection, campaign["name"], categories, since)
    lost = Counter(step.category for step in working.lost)
    steps = {}
    for category in categories:
        counts = states.get(category, {})
        alive = working.of(category)
        steps[category] = {
            "waiting": counts.get("WAITING", 0),
            "ready": counts.get("READY", 0),
            "running": len(alive),
            "lost": lost[category],
            "failed": counts.get("FIZZLED", 0),
            "done": counts.get("COMPLETED", 0),
            "per_hour": _per(completed.get(category, 0), window, timedelta(hours=1)),
            "left_s": _left_s(connection, campaign, category, counts, working),
        }
    return steps


def _left_s(
    connection: Connection,
    campaign: Mapping[str, Any],
    category: str,
    counts: Mapping[str, int],
    working: Activity,
) -> float | None:
    """Time until the steps of a category are done, s; None if nobody can know."""
    alive = working.of(category)
    n_lost = sum(step.category == category for step in working.lost)
    n_waiting = sum(counts.get(state, 0) for state in NOT_BEGUN) + n_lost
    if n_waiting + len(alive) == 0:
        return 0.0
    # Ready, and whoever is at work does not take them: they are of other kinds.
    left_alone = counts.get("READY", 0) > 0 and not alive
    stopped = campaign.get("paused") or campaign.get("cancelled")
    if not working.alive or left_alone or stopped:
        return None
    done = newest_intervals(connection, campaign["name"], category, limit=STEPS_TIMED)
    return steps_left_s(n_waiting, done, [step.began_at for step in alive], working.now)


def _dft_left_s(
    connection: Connection, last: RoundDocument, working: Activity, progress: Progress
) -> float | None:
    """The same of the DFT that is under way, by its calculations: one step may hold many."""
    final = last.purpose == "final"
    counts = progress.get("dft_relaxations" if final else "dft_single_points")
    if counts is None or counts["total"] is None or counts["done"] is None:
        return None
    done = newest_intervals(connection, last.campaign, DFT, limit=STEPS_TIMED)
    under_way = [(step.began_at, working.now) for step in working.of(DFT)]
    first = min(start for start, _ in [*done, *under_way])
    if final:
        # Relaxations take longer than the single points before them.
        first = max(first, last.created_at)
    kind = "relaxation" if final else "single_point"
    ended = activity.dft_since(connection, last.campaign, first, kind).calculations
    busy_s = busy_seconds([*done, *under_way], first)
    return calculations_left_s(counts["total"] - counts["done"], ended, busy_s)


def _all_left_s(steps: Mapping[str, Mapping[str, Any]], working: Activity) -> float | None:
    """Time until the round is done, s: DFT, fit and relaxations follow one another."""
    each = [step["left_s"] for step in steps.values()]
    return None if not working.alive or None in each else float(sum(each))


def _per(n: int, window: timedelta, unit: timedelta) -> float:
    # A campaign that has just begun has no rate to speak of, and time may stand still.
    return n * unit / max(window, timedelta(seconds=1))


def _took_s(connection: Connection, campaign: Mapping[str, Any]) -> float | None:
    """Time from the start to the end of the last step, s; None before there is one."""
    newest = [
        ended
        for category in CATEGORIES
        for _, ended in newest_intervals(connection, campaign["name"], category, limit=1)
    ]
    return (max(newest) - campaign["created_at"]).total_seconds() if newest else None


def _progress(
    store: CampaignStore,
    pool: dict[str, int],
    last: RoundDocument | None,
    asked: Mapping[int, Sequence[str]],
) -> Progress:
    if last is None:
        return {"prototypes": {"done": store.count(), "total": pool.get("total")}}
    progress: Progress = {}
    keys = asked.get(last.number, ())
    if keys:
        progress["dft_single_points"] = {
            "done": activity.count_results(store.connection, keys),
            "total": len(keys),
            "failed": activity.count_results(store.connection, keys, "failed"),
        }
    if last.purpose in ("seed", "learn", "refine"):
        mine: dict[str, Any] = {"relaxed.stage": last.stage}
        waiting = {**mine, "relaxed.outcome": "extrapolating"}
        if last.again:
            done = store.count(**mine, **{"relaxed.potential": last.potential})
        else:
            done = store.count(**mine)
            # Those that wait for this round's potential.
            done -= store.count(**waiting, **{"relaxed.potential": {"$lt": last.potential}})
        progress["relaxations"] = {
            "done": done,
            "total": store.count(
                stage=last.stage, order={"$lt": last.wave}, dropped={"$exists": False}
            ),
            "extrapolating": store.count(**waiting, **{"relaxed.potential": last.potential}),
        }
    if last.purpose == "final":
        finals = store.tally("final.state", stage=last.stage)
        progress["dft_relaxations"] = {
            "done": sum(n for (state,), n in finals.items() if state is not None),
            "total": len(last.final_indices),
            "failed": finals.get(("failed",), 0),
        }
    return progress
