"""How a campaign learnt and what it cost, as plain data: funnel, errors, grades, processor time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.census import BINS_PER_DECADE, Census
from hullscreen.launch.dashboard.hull_data import RELAXED
from hullscreen.workflows.report import cpu_seconds, funnel

Plain = dict[str, Any]

# Grades are inside the structures' documents: of larger pools a part is read.
GRADES_READ = 20_000

CURVES = (
    "number",
    "stage",
    "level",
    "n_training",
    "loss",
    "energy_rmse",
    "force_rmse",
)
PARTS = {
    "dft_labels": "DFT, training set",
    "dft_final": "DFT, final stage",
    "training": "training",
    "relaxation": "MTP relaxation",
    "selection": "selection",
    "prototypes": "prototypes",
    "fireworks": "FireWorks",
    "database": "database, workers",
    "mongod": "database server",
}


def funnel_levels(store: CampaignStore, stable: Plain | None) -> list[Plain]:
    """From the pool to the hull: ``name``, ``n`` (None until it is decided), why others left.

    Parameters
    ----------
    stable
        As `hullscreen.launch.dashboard.hull_data.stable_data` gives it; None before there is a
        hull.
    """
    numbers = funnel(store, store.campaign()["pool"], store.rounds(), None)
    first, second, final = (numbers[name] for name in ("screen_1", "screen_2", "final"))
    of_dft = stable is not None and stable["energies"] == RELAXED
    n_stable = len(stable["rows"]) if stable is not None and of_dft else None
    return [
        {"name": "pool", "n": numbers["prototypes"].get("total"), "dropped": {}},
        {"name": "kept by screen 1", "n": first["kept"], "dropped": first["dropped"]},
        {"name": "kept by screen 2", "n": second["kept"], "dropped": second["dropped"]},
        {"name": "relaxed with DFT", "n": final["dft_relaxed"], "dropped": final["dropped"]},
        {"name": "on the hull", "n": n_stable, "dropped": {}},
    ]


def learning_curves(store: CampaignStore) -> Plain:
    """Errors of each potential, and σ as each round knew it.

    Returns
    -------
    ``potentials``: ``number, stage, level, n_training, loss``, and ``energy_rmse`` in eV/atom and
    ``force_rmse`` in eV/Å over the training set, None of those fitted by earlier versions;
    ``sigmas``: ``round, stage, sigma, uncertainty`` in eV/atom and ``n_structures``, where it
    changed.
    """
    potentials = [
        {name: document.get(name) for name in CURVES} for document in store.potentials(list(CURVES))
    ]
    sigmas: list[Plain] = []
    for before, round_ in pairwise(store.rounds()):
        sigma = round_.sigma
        if sigma is None or sigma == before.sigma:
            continue
        sigmas.append(
            {
                "round": round_.number,
                # The decision of the round before has measured it.
                "stage": before.stage,
                "sigma": sigma["sigma"],
                "uncertainty": sigma["uncertainty"],
                "n_structures": sigma["n_structures"],
            }
        )
    return {"potentials": potentials, "sigmas": sigmas}


def grade_histogram(store: CampaignStore) -> Plain:
    """Highest grades of the newest relaxations, and the two thresholds.

    Returns
    -------
    ``stages``: ``{stage: {"grades": middles of bins, "numbers": structures}}``;
    ``every``: grades are those of one structure in so many;
    ``select_grade, break_grade``: as the campaign's settings have them.
    """
    campaign = store.campaign()
    settings = campaign["settings"]["learning"]
    every = max(1, int(campaign["pool"].get("total") or 0) // GRADES_READ)
    found = Census(store.connection, store.name).grades(every=every)
    return {
        "stages": {
            str(stage): {
                "grades": [10 ** (place / BINS_PER_DECADE) for place in bins],
                "numbers": list(bins.values()),
            }
            for stage, bins in found.items()
        },
        "every": every,
        "select_grade": float(settings["select_grade"]),
        "break_grade": float(settings["break_grade"]),
    }


def cpu_parts(store: CampaignStore) -> list[Plain]:
    """Processor time: ``part`` in words and ``seconds``, the largest first."""
    spent = cpu_seconds(store.campaign()["cpu_seconds"], store.dft_costs())
    return [
        {"part": PARTS.get(name, name.replace("_", " ")), "seconds": float(seconds)}
        for name, seconds in spent.items()
        if seconds > 0
    ]
