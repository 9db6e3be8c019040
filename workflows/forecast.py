"""What a campaign will cost, before it begins and while it runs.

How many calculations comes from `expected_work`, what each costs from `dft_costs`: from those that
the database holds of the same engine and elements, whoever paid them. Where it holds none, a few of
those that the campaign asks for first are computed; they are stored, so nobody pays them twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hullscreen.dft_adapters.engine import fingerprint
from hullscreen.dft_adapters.result_file import RESULT_FILE
from hullscreen.potentials.basis import generate_basis
from hullscreen.potentials.structures import FloatArray, Structures
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.dft_costs import CostModel, Workloads, model_of
from hullscreen.workflows.dft_jobs import RELAXATION, SINGLE_POINT, atoms_of, jobs_of
from hullscreen.workflows.expected_work import (
    Estimate,
    expected_calculations,
    labelling_rounds,
    potential_seconds,
)
from hullscreen.workflows.pool_survey import Survey
from hullscreen.workflows.settings_tree import DFT

LABELS = ("seed", "learn", "validate", "refine")
# Evaluations of a relaxation that begins where a potential ended: by our own driver, whose first
# one is stored already, or by a program.
EVALUATIONS_INSIDE, EVALUATIONS_OF_A_PROGRAM = 2.0, 8.0
PARALLEL_OPTIONS = ("-np", "-n", "--np", "--ntasks")
DATABASE_BYTES, BYTES_OF_A_STRUCTURE, BYTES_OF_A_CALCULATION = 1e8, 1.5e3, 5e5


def cost_model(campaign: Campaign) -> CostModel | None:
    """What calculations cost, by those that are stored; None if there are none."""
    store, elements = campaign.store, campaign.elements
    subsets = chain.from_iterable(combinations(elements, n) for n in range(1, len(elements) + 1))
    engines = list({fingerprint(campaign.engine, subset) for subset in subsets})
    model = model_of(
        store.costs_of(engines, elements, SINGLE_POINT),
        store.costs_of(engines, elements, RELAXATION),
        workloads(campaign),
    )
    if model is not None and not model.n_relaxations and campaign.settings.dft.engine == "ase":
        return replace(model, relaxation=EVALUATIONS_INSIDE)
    return model


def workloads(campaign: Campaign) -> Workloads:
    """How to weigh the structures of a campaign."""
    return Workloads.of_engine(campaign.settings.dft.engine_table(), campaign.elements)


def processes_of(settings: DFT) -> int:
    """Processes of one calculation, by what its command says."""
    words = str(settings.engine_table().get("command", "")).replace("=", " ").split()
    for option, number in pairwise(words):
        if option in PARALLEL_OPTIONS and number.isdecimal():
            return max(int(number), 1)
    return 1


def forecast(
    campaign: Campaign,
    found: Survey,
    *,
    n_workers: int,
    parallel: float | None = None,
    n_cores: int | None = None,
) -> dict[str, Any]:
    """Numbers of calculations, processor time, wall time and disk, as plain JSON.

    Parameters
    ----------
    n_workers
        That do DFT.
    parallel
        CPU seconds that a calculation takes in one second; None: by its command.
    n_cores
        Of this machine, if the workers are on it.

    Returns
    -------
    ``campaign, elements, engine``; ``pool``: ``total``, ``by_lattice``, ``by_atoms``;
    ``calculations``: single points by purpose and in all, ``relaxations``, and ``evaluations`` of
    energy, each as ``low, expected, high``;
    ``cost``: what calculations cost, ``n_single_points`` and ``n_relaxations`` from which that is
    known, and the ``factor`` by which it may be wrong; None if nothing is known;
    ``cpu_seconds, wall_seconds``: ``labels``, ``final_relaxations``, ``potential`` and ``total``,
    the first, second and last of them None if costs are not known;
    ``workers``, ``processes``: of DFT, and of one calculation;
    ``disk_bytes``; ``done``: calculations and CPU seconds that the campaign has spent so far.
    """
    total = sum(found.by_lattice.values())
    numbers = _numbers(campaign, found, total)
    labels = sum((numbers[purpose] for purpose in LABELS), Estimate.exactly(0))
    model = cost_model(campaign)
    processes = processes_of(campaign.settings.dft)
    speed = n_workers * (parallel or processes)
    if n_cores:
        speed = min(speed, float(n_cores))
    in_process = campaign.settings.dft.engine == "ase"
    steps = EVALUATIONS_INSIDE if in_process else EVALUATIONS_OF_A_PROGRAM
    evaluations = labels + numbers["final"].times(steps / 2, steps, steps * 1.5)
    potential = potential_seconds(total, labels, _n_parameters(campaign)[1])
    cpu: dict[str, Estimate | None] = dict.fromkeys(("labels", "final_relaxations"))
    wall = dict(cpu)
    cost = None
    if model is not None:
        by_purpose = _cpu_seconds(campaign, found, numbers, model)
        rounds = labelling_rounds(total)
        idle = 1.0 - 1.0 / n_workers
        waits = {
            purpose: by_purpose[purpose].expected / max(numbers[purpose].expected, 1.0)
            * rounds[purpose] * idle / (speed / n_workers)
            for purpose in numbers
        }  # fmt: skip
        for part, purposes in (("labels", LABELS), ("final_relaxations", ("final",))):
            spent = sum((by_purpose[p] for p in purposes), Estimate.exactly(0))
            cpu[part] = spent
            wait = Estimate.exactly(sum(waits[p] for p in purposes))
            wall[part] = spent.times(1 / speed, 1 / speed, 1 / speed) + wait
        mean = model.seconds(workloads(campaign).of(found.sample)).mean()
        cost = {
            "n_single_points": model.n_measured,
            "n_relaxations": model.n_relaxations,
            "factor": model.factor,
            "slope": model.slope,
            "cpu_seconds_of_a_single_point": float(mean),
            "single_points_of_a_relaxation": model.relaxation,
        }
    n_calculations = (labels + numbers["final"]).expected
    return {
        "campaign": campaign.store.name,
        "elements": list(campaign.elements),
        "engine": campaign.engine.name,
        "pool": {
            "total": total,
            "by_lattice": found.by_lattice,
            "by_atoms": {str(n): number for n, number in found.by_atoms.items()},
        },
        "calculations": {
            **{purpose: numbers[purpose].to_dict() for purpose in LABELS},
            "single_points": labels.to_dict(),
            "relaxations": numbers["final"].to_dict(),
            "evaluations": evaluations.to_dict(),
        },
        "cost": cost,
        "cpu_seconds": _with_total({**cpu, "potential": potential}),
        "wall_seconds": _with_total({**wall, "potential": potential}),
        "workers": n_workers,
        "processes": processes,
        "disk_bytes": _disk_bytes(campaign, total, n_calculations),
        "done": _done(campaign),
    }


def _numbers(campaign: Campaign, found: Survey, total: int) -> dict[str, Estimate]:
    """Calculations by purpose; those of a campaign that has begun are known in part."""
    expected = expected_calculations(
        total,
        len(campaign.elements),
        len(found.seed),
        _n_parameters(campaign),
        campaign.settings.screening,
    )
    asked = Counter(selected.purpose for selected in campaign.store.selected())
    last = campaign.store.last_round()
    if last is not None and last.purpose == "final":
        asked["final"] = len(last.final_indices)
        return {purpose: Estimate.exactly(asked[purpose]) for purpose in expected}
    return {purpose: n.at_least(asked[purpose]) for purpose, n in expected.items()}


def _n_parameters(campaign: Campaign) -> tuple[int, int]:
    """Parameters of the first and of the second potential."""
    n_elements = len(campaign.elements)
    size = campaign.settings.potential.radial_basis_size
    bases = [generate_basis(campaign.level(stage)) for stage in (1, 2)]
    first, second = (
        basis.n_radial * size * n_elements**2 + n_elements + basis.scalars.size for basis in bases
    )
    return first, second


def _cpu_seconds(
    campaign: Campaign, found: Survey, numbers: Mapping[str, Estimate], model: CostModel
) -> dict[str, Estimate]:
    """Processor time by purpose; that of the seed is known where it is computed."""
    work, factor = workloads(campaign), model.factor
    mean = float(model.seconds(work.of(found.sample)).mean())
    seconds = {
        purpose: number.times(mean / factor, mean, mean * factor)
        for purpose, number in numbers.items()
    }
    low, high = model.relaxation_range
    seconds["final"] = numbers["final"].times(
        mean * low / factor, mean * model.relaxation, mean * high * factor
    )
    known, rest = _seed_seconds(campaign, found.seed, model.seconds(work.of(found.seed)))
    seconds["seed"] = Estimate(known + rest / factor, known + rest, known + rest * factor)
    return seconds


def _seed_seconds(
    campaign: Campaign, seed: Structures, predicted: FloatArray
) -> tuple[float, float]:
    """CPU seconds of the seed that were spent, and those that are expected on top."""
    jobs = jobs_of(campaign, "seed")
    keys = [
        jobs.key(atoms_of(*seed.one(i), campaign.elements), SINGLE_POINT) for i in range(len(seed))
    ]
    stored = campaign.store.dft_results(keys)
    known = sum(stored[key].cpu_seconds for key in keys if key in stored)
    return known, float(sum(s for key, s in zip(keys, predicted, strict=True) if key not in stored))


def _with_total(parts: Mapping[str, Estimate | None]) -> dict[str, dict[str, float] | None]:
    known = [part for part in parts.values() if part is not None]
    total = sum(known, Estimate.exactly(0)) if len(known) == len(parts) else None
    return {
        name: part.to_dict() if part else None for name, part in {**parts, "total": total}.items()
    }


def _disk_bytes(campaign: Campaign, total: int, n_calculations: float) -> float:
    """Bytes of the campaign's own server and of the files of its calculations."""
    calculation = 0.0
    if campaign.settings.dft.engine != "ase":
        # Of those that are done: a calculation under way has scratch files.
        sizes = [
            _bytes_below(found.parent) for found in campaign.directory.glob(f"??/*/{RESULT_FILE}")
        ]
        calculation = float(np.mean(sizes)) if sizes else BYTES_OF_A_CALCULATION
    settings = campaign.settings.database
    own = not (settings.uri or settings.uri_file)
    return own * DATABASE_BYTES + BYTES_OF_A_STRUCTURE * total + n_calculations * calculation


def _bytes_below(folder: Path) -> int:
    """Size of the files in a folder and all below it; what vanishes meanwhile is left out."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(place, name).lstat().st_size
    return size


def _done(campaign: Campaign) -> dict[str, float]:
    costs = [c for p, c in campaign.store.dft_costs().items() if p in (*LABELS, "final")]
    names = ("single_points", "relaxations", "evaluations", "cpu_seconds")
    return {name: sum(cost[name] for cost in costs) for name in names}
