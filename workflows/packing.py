"""How DFT calculations are cut into jobs: small ones share one, large ones have one each.

The spans of a round follow from its structures and the settings alone, never from what was
measured, so that a round that is submitted again has the same jobs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hullscreen.potentials.structures import FloatArray, IndexArray
from hullscreen.workflows.settings_tree import DFT

# Cells up to this size cost about the same; beyond, electrons times bands grow with the square.
SMALL_CELL = 4
SIZE_POWER = 2.0
SINGLE_POINTS_OF_A_RELAXATION = 8.0
# Where the settings leave the size of jobs open, so many workers find something in each round, if
# there is enough; and a workflow keeps to a size that FireWorks handles in a tenth of a second.
MANY_WORKERS = 24
MOST_JOBS = 200


def job_spans(
    n_atoms: IndexArray, settings: DFT, *, relaxations: bool
) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) calculation of each job of a round.

    Parameters
    ----------
    n_atoms
        Atoms of each structure in the order of the round, shape (n_structures,).
    relaxations
        Whether these are relaxations, or single points.

    Notes
    -----
    An ASE calculator runs inside the worker, and a relaxation with it keeps what it has computed:
    its jobs hold a fixed number of structures. A job of any other engine holds
    ``structures_per_job`` single points of small cells, or fewer of larger ones.
    """
    if settings.engine == "ase":
        return packed(np.ones(len(n_atoms)), settings.structures_at_once)
    costs = relative_costs(n_atoms, relaxations=relaxations)
    budget: float = settings.structures_per_job
    if not budget:
        spread = min(costs.sum() / MANY_WORKERS, settings.structures_at_once)
        budget = max(spread, costs.sum() / MOST_JOBS)
    return packed(costs, budget)


def relative_costs(n_atoms: IndexArray, *, relaxations: bool) -> FloatArray:
    """Expected costs, in single points of a small cell, shape (n_structures,)."""
    costs: FloatArray = np.maximum(n_atoms / SMALL_CELL, 1.0) ** SIZE_POWER
    return costs * (SINGLE_POINTS_OF_A_RELAXATION if relaxations else 1.0)


def packed(costs: FloatArray, budget: float) -> Iterator[tuple[int, int]]:
    """Cut a sequence into spans whose costs add up to no more than a budget.

    What costs more than the budget is a span of its own.
    """
    first, spent = 0, 0.0
    for place, cost in enumerate(costs):
        if place > first and spent + cost > budget:
            yield first, place
            first, spent = place, 0.0
        spent += cost
    if len(costs):
        yield first, len(costs)
