"""DFT jobs: which calculations share one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullscreen.workflows.packing import (
    MANY_WORKERS,
    MOST_JOBS,
    SINGLE_POINTS_OF_A_RELAXATION,
    job_spans,
    packed,
    relative_costs,
)
from hullscreen.workflows.settings_tree import DFT, MOST_AT_ONCE

SIZES = st.lists(st.integers(1, 24), max_size=400)
PROGRAM = "quantum_espresso"
# Sums of costs in another order differ by rounding.
ROUNDING = 1e-9


def spans(sizes, *, relaxations=False, engine=PROGRAM, per_job=0):
    settings = DFT(engine=engine, structures_per_job=per_job)
    return list(job_spans(np.array(sizes, dtype=np.int64), settings, relaxations=relaxations))


def is_a_partition(found, n):
    """Whether spans follow one another without gaps, from 0 to n, and none is empty."""
    edges = [0, *(last for _, last in found)]
    return edges[-1] == n and all(
        (first, last) == span and first < last
        for (first, last), span in zip(pairwise(edges), found, strict=True)
    )


@given(costs=st.lists(st.floats(0.01, 100)), budget=st.floats(0.01, 200))
def test_spans_keep_to_the_budget_unless_one_alone_exceeds_it(costs, budget):
    costs = np.array(costs)
    found = list(packed(costs, budget))
    assert is_a_partition(found, len(costs))
    for first, last in found:
        assert last - first == 1 or costs[first:last].sum() <= budget * (1 + ROUNDING)
    # None could have taken the next one as well.
    for (first, last), _ in pairwise(found):
        assert costs[first : last + 1].sum() > budget * (1 - ROUNDING)


@given(sizes=SIZES, relaxations=st.booleans(), per_job=st.integers(0, 60))
@pytest.mark.parametrize("engine", ["ase", PROGRAM])
def test_every_calculation_is_in_one_job_and_none_changes_its_place(
    engine, sizes, relaxations, per_job
):
    found = spans(sizes, relaxations=relaxations, engine=engine, per_job=per_job)
    assert is_a_partition(found, len(sizes))
    assert found == spans(sizes, relaxations=relaxations, engine=engine, per_job=per_job)


@given(sizes=SIZES, per_job=st.integers(0, 60))
def test_an_ase_calculator_gets_a_fixed_number(sizes, per_job):
    size = per_job or MOST_AT_ONCE
    n = len(sizes)
    assert spans(sizes, engine="ase", per_job=per_job, relaxations=True) == [
        (first, min(first + size, n)) for first in range(0, n, size)
    ]


def test_small_ones_share_a_job_and_large_ones_have_their_own():
    assert spans([1, 2, 4, 4, 8, 3, 2, 16], per_job=4) == [(0, 4), (4, 5), (5, 7), (7, 8)]
    # Four times as many atoms cost sixteen times as much.
    assert relative_costs(np.array([1, 4, 8, 16]), relaxations=False).tolist() == [1, 1, 4, 16]
    assert spans([4] * 20, per_job=20, relaxations=True) == [
        (first, first + int(20 // SINGLE_POINTS_OF_A_RELAXATION)) for first in range(0, 20, 2)
    ]
    assert spans([6, 6, 6], per_job=20, relaxations=True) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("n", [1, 3, MANY_WORKERS])
def test_a_small_round_gives_every_worker_something(n):
    assert len(spans([4] * n)) == n
    assert len(spans([4] * n, relaxations=True)) == n


@pytest.mark.parametrize("relaxations", [False, True])
@pytest.mark.parametrize("n", [40, 400, 5000])
def test_a_large_round_has_neither_few_nor_very_many_jobs(n, relaxations):
    found = spans([4] * n, relaxations=relaxations)
    # What is left over at the ends of spans may halve or double the number.
    assert min(n, MANY_WORKERS) / 2 <= len(found) <= 2 * MOST_JOBS
