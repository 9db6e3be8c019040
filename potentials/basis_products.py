"""The cheapest list of products that gives a set of scalars.

Every tensor can be cut in many ways, and every way needs other tensors, which others may need too:
which cuts cost least in all is an integer linear programme. Its relaxation is nearly integral, so
that the optimum is found in a fraction of a second up to level 20 and in two seconds at level 24.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from hullscreen.potentials.basis_splits import Split, expand, splits
from hullscreen.potentials.basis_tensors import Tensor, axes_counts, n_distinct
from hullscreen.potentials.errors import PotentialError
from hullscreen.potentials.structures import IndexArray, IntArray

# What it costs to keep a moment (clear, load, store, and its adjoint), in products.
MOMENT_COST = 1.0


class Way(NamedTuple):
    """A way of making a tensor: how many products, of which operands that are no moments."""

    n_products: int
    operands: frozenset[Tensor]
    split: Split


def ways(tensor: Tensor) -> list[Way]:
    """The cheapest split of a canonical tensor for each set of operands."""
    labels = sorted(set(tensor.radial))
    radial = tuple(labels.index(mu) for mu in tensor.radial)
    return [
        way._replace(
            operands=frozenset(
                operand._replace(radial=tuple(labels[mu] for mu in operand.radial))
                for operand in way.operands
            )
        )
        for way in _ways_of_pattern(tensor._replace(radial=radial))
    ]


@lru_cache(maxsize=2**14)
def _ways_of_pattern(tensor: Tensor) -> tuple[Way, ...]:
    """Ways of a tensor whose radial functions are numbered without gaps: many share them."""
    cheapest: dict[frozenset[Tensor], Way] = {}
    for split in splits(tensor):
        left, right, rows = expand(tensor, split)
        operands = frozenset(operand for operand in (left, right) if len(operand.radial) > 1)
        if operands not in cheapest or cheapest[operands].n_products > len(rows):
            cheapest[operands] = Way(len(rows), operands, split)
    return tuple(cheapest.values())


def choose_ways(scalars: Iterable[Tensor]) -> dict[Tensor, Way]:
    """How to make each scalar and each tensor needed on the way, at the least cost in all.

    Raises
    ------
    PotentialError
        The integer programme was not solved.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    roots = dict.fromkeys(scalars)
    if not roots:
        return {}
    choices: dict[Tensor, list[Way]] = {}
    waiting = list(roots)
    while waiting:
        tensor = waiting.pop()
        if tensor not in choices:
            choices[tensor] = ways(tensor)
            waiting += [operand for way in choices[tensor] for operand in way.operands]
    # Unknowns: is a tensor made, for all of them; then: is a way taken, for all of each tensor.
    number = {tensor: i for i, tensor in enumerate(choices)}
    cost = [MOMENT_COST * n_distinct(tensor) for tensor in choices]
    entries: list[tuple[int, int, int]] = []
    n_constraints = 0
    for tensor, found in choices.items():
        # A tensor that is made takes one way; a way that is taken needs each of its operands.
        taken = range(len(cost), len(cost) + len(found))
        cost += [float(way.n_products) for way in found]
        needing: dict[Tensor, list[int]] = {}
        for i, way in zip(taken, found, strict=True):
            for operand in way.operands:
                needing.setdefault(operand, []).append(i)
        for made, unknowns, sign in [
            (tensor, list(taken), -1),
            *((operand, users, 1) for operand, users in needing.items()),
        ]:
            entries.append((n_constraints, number[made], sign))
            entries += [(n_constraints, i, -sign) for i in unknowns]
            n_constraints += 1
    rows, columns, values = np.array(entries).T
    made_at_least = np.zeros(len(cost))
    made_at_least[[number[tensor] for tensor in roots]] = 1.0
    solution = milp(
        np.array(cost),
        integrality=np.ones(len(cost)),
        bounds=Bounds(made_at_least, 1.0),
        constraints=LinearConstraint(
            coo_array((values, (rows, columns)), shape=(n_constraints, len(cost))).tocsr(), 0.0
        ),
    )
    if solution.x is None:
        raise PotentialError(
            f"the products of a basis of {len(roots)} scalars could not be chosen: "
            f"{solution.message}; report the level and the version of scipy"
        )
    unknown = iter(solution.x[len(number) :] > 0.5)
    return {
        tensor: way
        for i, (tensor, found) in enumerate(choices.items())
        for way in found
        if next(unknown) and solution.x[i] > 0.5
    }


def carry_out(
    scalars: list[Tensor], moments: list[tuple[int, int]]
) -> tuple[IntArray, list[int], int]:
    """Products that make scalars from moments.

    Parameters
    ----------
    scalars
        Canonical tensors without open indices.
    moments
        (μ, ν) of the basic moments, whose components are numbered one after the other.

    Returns
    -------
    Products (left, right, coefficient, target), shape (n_products, 4), those of one target
    together and after those of its operands; the number of each scalar; how many numbers there are.
    """
    numbers: dict[Tensor, IndexArray] = {}
    n_moments = 0
    for mu, rank in moments:
        tensor = Tensor((mu,), (rank,), ())
        a, b = axes_counts(rank)
        numbers[tensor] = np.full(prod(tensor.shape), -1)
        numbers[tensor][(rank + 1) * a + b] = n_moments + np.arange(len(a))
        n_moments += len(a)
    products = [np.zeros((0, 4), dtype=np.int64)]
    roots = [scalar for scalar in scalars if scalar not in numbers]
    chosen = choose_ways(roots)
    for tensor in _in_order(roots, chosen):
        left, right, rows = expand(tensor, chosen[tensor].split)
        targets, place = np.unique(rows[:, 0], return_inverse=True)
        numbers[tensor] = np.full(prod(tensor.shape), -1)
        numbers[tensor][targets] = n_moments + np.arange(len(targets))
        operands = (numbers[left][rows[:, 1]], numbers[right][rows[:, 2]])
        products.append(np.stack([*operands, rows[:, 3], n_moments + place], axis=1))
        n_moments += len(targets)
    found = [int(numbers[scalar][0]) for scalar in scalars]
    return np.concatenate(products).astype(np.int32), found, n_moments


def _in_order(roots: list[Tensor], chosen: dict[Tensor, Way]) -> list[Tensor]:
    """Operands before what they make, and what they make as soon as it can be made."""
    users: dict[Tensor, list[Tensor]] = {}
    for tensor, way in chosen.items():
        for operand in way.operands:
            users.setdefault(operand, []).append(tensor)
    wanted = set(roots)
    done: dict[Tensor, None] = {}

    def make(tensor: Tensor) -> None:
        if tensor in done:
            return
        for operand in sorted(chosen[tensor].operands):
            make(operand)
        done[tensor] = None
        for user in users.get(tensor, ()):
            if user in wanted and all(operand in done for operand in chosen[user].operands):
                make(user)

    for root in roots:
        make(root)
    return list(done)
