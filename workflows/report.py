"""What a campaign did: what each stage kept and dropped, how sure it was, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.round_documents import RoundDocument
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows.label_list import quarantined_rows
from hullscreen.workflows.results import HullResult, final_hull
from hullscreen.workflows.screening import ErrorEstimate, expected_losses

STAGE_KEYS = {1: "screen_1", 2: "screen_2", 3: "final"}
# What DFT is computed for in a campaign, in the order of its rounds. A comparison with brute force
# is no cost of the campaign.
PURPOSES = ("seed", "learn", "validate", "refine", "final")
LABELS = ("seed", "learn", "validate", "refine")

Tally = dict[tuple[Any, ...], int]


def campaign_report(
    store: CampaignStore, intervals: Sequence[tuple[datetime, datetime]] = ()
) -> dict[str, Any]:
    """Everything a reader of the hull may ask about how it came to be, as plain JSON.

    Parameters
    ----------
    intervals
        When steps of the campaign ran, in order of their start.

    Returns
    -------
    ``campaign, chemsys, elements, finished, dft_engine``;
    ``funnel``: by stage (``prototypes, screen_1, screen_2, final``) what entered,
    was dropped and why, and was kept;
    ``outcomes``: how relaxations with the potential ended, by stage;
    ``sigma``: by stage the energy error on structures outside the training set, in meV/atom, with
    its uncertainty, sample and the window it led to, and how many structures below the hull the
    stage is expected to have dropped; None while it is not known;
    ``dft_evaluations``: ``total`` and by purpose; ``dft_calculations``: more of each purpose;
    ``failures``: DFT calculations that failed, with reasons;
    ``quarantined``: those whose results cannot be right, with reasons; ``doubts``: by round, why
    labels that look wrong were learnt nevertheless;
    ``cpu_seconds``: ``total`` and by part;
    ``peak_memory_bytes``: of a worker, and of the embedded server;
    ``structures_per_cpu_second``: of relaxations with the potential, each structure's last one of a
    stage;
    ``wall_seconds``: ``elapsed`` from the first step to the last, and ``working``, pauses left out;
    ``forecasts``: what was expected before the ``start`` and when the ``seed`` was labelled, where
    it was; see `hullscreen.workflows.forecast.forecast`;
    ``rounds``, ``potentials``: one row for each.
    """
    campaign = store.campaign()
    rounds = store.rounds()
    costs = store.dft_costs()
    evaluations = {
        purpose: int(costs.get(purpose, {}).get("evaluations", 0)) for purpose in PURPOSES
    }
    outcomes = _outcomes(store)
    cpu = cpu_seconds(campaign["cpu_seconds"], costs)
    relaxed = sum(sum(counts.values()) for counts in outcomes.values())
    relaxation_s = cpu.get("relaxation", 0.0)
    return {
        "campaign": store.name,
        "chemsys": campaign["chemsys"],
        "elements": list(campaign["elements"]),
        "finished": campaign["finished"],
        "dft_engine": campaign["engine"]["name"],
        "funnel": funnel(store, campaign["pool"], rounds, _hull(store)),
        "outcomes": outcomes,
        "sigma": _sigma(store, rounds, campaign["settings"]["screening"]["sigma_multiple"]),
        "dft_evaluations": {"total": sum(evaluations.values()), **evaluations},
        "dft_calculations": {purpose: costs[purpose] for purpose in PURPOSES if purpose in costs},
        "failures": [
            {
                "structure_index": failed.structure_index,
                "purpose": failed.purpose,
                "kind": failed.kind,
                "reason": failed.reason,
            }
            for failed in store.failed_dft()
            if failed.purpose in PURPOSES
        ],
        "quarantined": quarantined_rows(store),
        "doubts": campaign.get("doubts", {}),
        "cpu_seconds": {"total": sum(cpu.values()), **cpu},
        "peak_memory_bytes": campaign.get("peak_memory_bytes", {}),
        "structures_per_cpu_second": relaxed / relaxation_s if relaxation_s else None,
        "wall_seconds": _wall_seconds(intervals),
        "forecasts": campaign.get("forecasts", {}),
        "rounds": _rounds(store, rounds),
        "potentials": [
            {**potential, "created_at": potential["created_at"].isoformat()}
            for potential in store.potentials(
                ["number", "stage", "level", "n_training", "loss", "condition", "created_at"]
            )
        ],
    }


def funnel(
    store: CampaignStore,
    pool: dict[str, int],
    rounds: Sequence[RoundDocument],
    hull: HullResult | None,
) -> dict[str, Any]:
    """Numbers of structures; what a stage kept is None until it has decided.

    Parameters
    ----------
    hull
        Of what DFT has relaxed; None where there is none.
    """
    by_stage = {stage: n for (stage,), n in store.tally("stage").items()}
    dropped = store.tally("dropped.stage", "dropped.reason")
    reached = {stage: sum(n for s, n in by_stage.items() if s >= stage) for stage in STAGE_KEYS}
    reached[3] += sum(_reasons(dropped, 3).values())
    decided = max((round_.stage for round_ in rounds), default=0)
    numbers: dict[str, Any] = {"prototypes": dict(pool)}
    for stage in (1, 2):
        numbers[STAGE_KEYS[stage]] = {
            "entered": reached[stage] if stage == 1 or decided >= stage else None,
            "dropped": _reasons(dropped, stage),
            "kept": reached[stage + 1] if decided > stage else None,
        }
    states = {
        state: n for (state,), n in store.tally("final.state", stage=3).items() if state is not None
    }
    wanted = len(rounds[-1].final_indices) if rounds else 0
    numbers["final"] = {
        "entered": reached[3] if decided >= 3 else None,
        "dropped": _reasons(dropped, 3),
        "dft_relaxed": states.get("done", 0),
        "dft_failed": states.get("failed", 0),
        "pending": max(wanted - sum(states.values()), 0),
        "stable": len(hull.stable) if hull else None,
        "ties": len(hull.ties) if hull else None,
    }
    return numbers


def _reasons(dropped: Tally, stage: int) -> dict[str, int]:
    found = {reason: n for (at, reason), n in dropped.items() if at == stage}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _hull(store: CampaignStore) -> HullResult | None:
    try:
        return final_hull(store)
    except CampaignError:
        # There is none before the elements are relaxed; the numbers around it say so.
        return None


def _outcomes(store: CampaignStore) -> dict[str, dict[str, int]]:
    """How relaxations ended, by stage: only what converged entered the next stage."""
    tally = store.tally("relaxed.stage", "relaxed.outcome")
    outcomes: dict[str, dict[str, int]] = {STAGE_KEYS[1]: {}, STAGE_KEYS[2]: {}}
    for (stage, outcome), n in sorted(tally.items(), key=lambda item: -item[1]):
        if stage is not None:
            outcomes[STAGE_KEYS[stage]][outcome] = n
    again = sum(outcomes[STAGE_KEYS[2]].values())
    if again:
        first = outcomes[STAGE_KEYS[1]]
        outcomes[STAGE_KEYS[1]] = {**first, "converged": first.get("converged", 0) + again}
    return outcomes


def _sigma(
    store: CampaignStore, rounds: Sequence[RoundDocument], multiple: float
) -> dict[str, Any]:
    """The estimate with which each stage was screened, and while it refines the latest one."""
    first = next((r.sigma for r in rounds if r.stage == 2), None)
    second = next((r.sigma for r in rounds if r.stage == 3), None)
    provisional = [r.sigma for r in rounds if r.stage == 2 and r.sigma != first]
    latest = second or (provisional[-1] if provisional else None)
    return {
        STAGE_KEYS[1]: _estimate(store, 1, first, multiple, final=True),
        STAGE_KEYS[2]: _estimate(store, 2, latest, multiple, final=second is not None),
    }


def _estimate(
    store: CampaignStore, stage: int, sigma: dict[str, Any] | None, multiple: float, *, final: bool
) -> dict[str, Any] | None:
    if sigma is None:
        return None
    names = ("sigma", "uncertainty", "largest", "lowest", "mean")
    return {
        **{f"{name}_mev_per_atom": 1e3 * sigma[name] for name in names},
        "n_structures": sigma["n_structures"],
        "multiple": multiple,
        "window_mev_per_atom": 1e3 * ErrorEstimate(**sigma).window(multiple),
        "final": final,
        "expected_lost": expected_losses(*store.dropped_heights(stage)) if final else None,
    }


def cpu_seconds(parts: dict[str, float], costs: dict[str, dict[str, float]]) -> dict[str, float]:
    """Processor time by part.

    Engines that are programs of their own report their time with each result; those inside our
    processes are in the time of the steps as well. The larger number is the whole.
    """
    seconds = dict(parts)
    reported = {purpose: costs.get(purpose, {}).get("cpu_seconds", 0.0) for purpose in PURPOSES}
    engine = {"dft_labels": sum(reported[p] for p in LABELS), "dft_final": reported["final"]}
    for part, value in engine.items():
        if part in seconds or value:
            seconds[part] = max(seconds.get(part, 0.0), value)
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _wall_seconds(intervals: Sequence[tuple[datetime, datetime]]) -> dict[str, float] | None:
    if not intervals:
        return None
    working, until = 0.0, intervals[0][0]
    for start, end in intervals:
        working += max((end - max(start, until)).total_seconds(), 0.0)
        until = max(until, end)
    return {"elapsed": (until - intervals[0][0]).total_seconds(), "working": working}


def _rounds(store: CampaignStore, rounds: Sequence[RoundDocument]) -> list[dict[str, Any]]:
    chosen = store.selected_counts()
    return [
        {
            "number": round_.number,
            "stage": STAGE_KEYS[round_.stage],
            "purpose": round_.purpose,
            "potential": round_.potential,
            "fits": round_.fits,
            "wave": round_.wave,
            "dft_single_points": chosen.get(round_.number, 0),
            "dft_relaxations": len(round_.final_indices),
            "created_at": round_.created_at.isoformat(),
        }
        for round_ in rounds
    ]
