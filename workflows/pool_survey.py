"""Looking at a campaign before it begins: its pool, and a few calculations of its seed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.dft_adapters.file_engine import Attempt, Task, WritesInputs
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import Structures, concatenate
from hullscreen.workflows.borrowed_labels import borrowed_labels, systems_of
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.dft_jobs import SINGLE_POINT, atoms_of, jobs_of
from hullscreen.workflows.dft_steps import final_stress_tolerance
from hullscreen.workflows.seed import SEED_POOL, campaign_seed

READ_TOGETHER = 2000
# Members of the pool that stand for what is chosen later.
SAMPLE = 200
# How busy processors are is told by calculations that take at least so long, s; while they wait for
# disks or for others, at least so much of the time.
LONG_ENOUGH_S = 5.0
SMALLEST_SHARE = 0.2


@dataclass(frozen=True)
class Survey:
    """What is known of a pool before any of it is computed.

    Attributes
    ----------
    by_lattice, by_atoms
        Numbers of structures.
    seed, sources
        The first training structures, and the places in the pool that they come from.
    sample
        Random members.
    n_borrowed
        Labels of campaigns with fewer elements, which are learnt from the start.
    """

    by_lattice: dict[str, int]
    by_atoms: dict[int, int]
    seed: Structures
    sources: Sequence[int]
    sample: Structures
    n_borrowed: int = 0


@dataclass(frozen=True)
class Measured:
    """Calculations that were made for a forecast.

    Attributes
    ----------
    n_computed
        How many; those that were stored already do not count.
    failures
        Sentences of those that failed.
    parallel
        CPU seconds of a second, while one of them runs; None if none was made.
    """

    n_computed: int
    failures: list[str]
    parallel: float | None


def survey(campaign: Campaign) -> Survey:
    """Enumerate the pool once."""
    counts = campaign.pool.count()
    rng = np.random.default_rng(campaign.settings.campaign.seed)
    n_sample = min(SAMPLE, counts["total"])
    wanted = np.sort(rng.choice(counts["total"], size=n_sample, replace=False))
    by_atoms: Counter[int] = Counter()
    smallest: Structures | None = None
    parts = []
    for batch in campaign.pool.batches(READ_TOGETHER):
        structures, first = batch.structures, batch.first_index
        by_atoms.update(structures.n_atoms.tolist())
        if smallest is None:
            smallest = structures.take(np.arange(min(SEED_POOL, len(structures))))
        mine = wanted[(wanted >= first) & (wanted < first + len(structures))]
        parts.append(structures.take(mine - first))
    assert smallest is not None, "a pool has its elements at least"  # noqa: S101
    settings = campaign.settings
    borrowed = borrowed_labels(campaign)
    seed, sources = campaign_seed(
        smallest,
        len(campaign.elements),
        len(settings.prototypes.lattices),
        settings.campaign.seed,
        systems_of(borrowed),
    )
    return Survey(
        {name: n for name, n in counts.items() if name != "total"},
        dict(sorted(by_atoms.items())),
        seed,
        sources.tolist(),
        concatenate(parts),
        len(borrowed),
    )


def measure(campaign: Campaign, found: Survey, progress: Callable[[int, int], None]) -> Measured:
    """Compute a few structures of the seed: each element, a small compound and a larger one.

    Parameters
    ----------
    progress
        Told how many of how many are done.

    Raises
    ------
    EngineMissingError
        The engine cannot compute these elements.
    """
    campaign.store.ensure_indexes()
    campaign.engine.check(campaign.elements)
    jobs = jobs_of(campaign, "seed")
    places = _places_to_measure(found.seed, len(campaign.elements))
    failures, spent = [], []
    for done, place in enumerate(places):
        progress(done, len(places))
        atoms = atoms_of(*found.seed.one(place), campaign.elements)
        before = campaign.store.dft_result(jobs.key(atoms, SINGLE_POINT))
        began = time.monotonic()
        try:
            result = jobs.single_point(atoms, found.sources[place])
        except CalculationError as error:
            failures.append(str(error))
            continue
        if before is None or before.state != "done":
            spent.append((result.cpu_seconds, max(time.monotonic() - began, 1e-6)))
    progress(len(places), len(places))
    cpu, wall = np.sum(spent, axis=0) if spent else (0.0, 0.0)
    # Milliseconds say nothing about how many processors are at work.
    parallel = max(cpu / wall, SMALLEST_SHARE) if wall > LONG_ENOUGH_S else None
    return Measured(len(spent), failures, parallel)


def write_examples(campaign: Campaign, found: Survey, directory: Path) -> list[Path]:
    """Write the inputs of a single point and of a relaxation, as the campaign would compute them.

    Neither the executable nor, where only their names are written, POTCARs are needed.

    Parameters
    ----------
    directory
        Gets the folders ``single_point`` and ``relaxation``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        The engine works in this process, without input files.
    EngineMissingError
        A pseudopotential is missing.
    """
    engine, dft = campaign.engine, campaign.settings.dft
    if not isinstance(engine, WritesInputs):
        raise InputError(
            f"engine '{dft.engine}' computes in the worker itself and has no input files; only "
            "'quantum_espresso' and 'vasp' have"
        )
    # The last one measured is the largest compound of the first structures.
    place = _places_to_measure(found.seed, len(campaign.elements))[-1]
    atoms = atoms_of(*found.seed.one(place), campaign.elements)
    tasks = {
        "single_point": Task("single_point"),
        "relaxation": Task(
            "relax", dft.force_tolerance, final_stress_tolerance(campaign), dft.max_steps
        ),
    }
    files = []
    for name, task in tasks.items():
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        files += [folder / file for file in engine.write_inputs(atoms, folder, task, Attempt())]
    return files


def _places_to_measure(seed: Structures, n_elements: int) -> list[int]:
    counts = seed.counts(n_elements)
    pure = (counts > 0).sum(axis=1) == 1
    chosen = [
        int(places[0])
        for k in range(n_elements)
        if len(places := np.flatnonzero(pure & (counts[:, k] > 0)))
    ]
    compounds = np.flatnonzero(~pure)
    if len(compounds):
        chosen += [int(compounds[0]), int(compounds[-1])]
    return list(dict.fromkeys(chosen))
