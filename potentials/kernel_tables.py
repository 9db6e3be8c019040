"""An MTP's basis and parameters in the form that the compiled kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hullscreen.potentials.kernels import Tables
from hullscreen.potentials.lanes import WIDTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hullscreen.potentials.basis import Basis
    from hullscreen.potentials.structures import FloatArray, IntArray

Powers = tuple[int, int, int]


def kernel_tables(
    basis: Basis,
    radial: FloatArray,
    shifts: FloatArray,
    linear: FloatArray,
    *,
    min_distance: float,
    cutoff: float,
    scaling: float,
) -> Tables:
    """Tables of a potential; see `moment_tensor_potential.MomentTensorPotential`.

    The basis may name its basic moments in any order. The kernels want those of each μ together,
    one for each monomial up to the highest degree that occurs with it.
    """
    degrees = np.zeros(basis.n_radial, dtype=np.int64)
    np.maximum.at(degrees, basis.basic[:, 0], basis.basic[:, 1:].sum(axis=1))
    monomials = _monomials(int(degrees.max()))
    number = {powers: k for k, powers in enumerate(monomials)}
    firsts = np.concatenate(
        [[0], np.cumsum((degrees + 1) * (degrees + 2) * (degrees + 3) // 6, dtype=np.int64)]
    )
    n_products = basis.n_moments - len(basis.basic)
    place = np.concatenate(
        [
            [firsts[mu] + number[a, b, c] for mu, a, b, c in basis.basic.tolist()],
            firsts[-1] + np.arange(n_products),
        ]
    )
    left, right, factor, target = basis.products.T
    ends = np.append(np.flatnonzero(np.diff(target)) + 1, len(target))[: len(target)]
    slots = [
        firsts[mu] + number[powers]
        for mu, degree in enumerate(degrees.tolist())
        for powers in _summed_monomials(degree)
    ]
    differences = [
        [firsts[mu] + number[powers] for powers in terms]
        for mu, degree in enumerate(degrees.tolist())
        for terms in _differences(degree)
    ]
    return Tables(
        radial=np.ascontiguousarray(radial, dtype=np.float64),
        shifts=np.ascontiguousarray(shifts, dtype=np.float64),
        linear=np.ascontiguousarray(linear, dtype=np.float64),
        firsts=_lanes(firsts),
        summed=_lanes(np.concatenate([[0], np.cumsum((degrees + 1) ** 2)])),
        slots=_lanes(np.array(slots)),
        differences=_lanes(np.array(differences, dtype=np.int64).reshape(-1, 4)),
        left=_lanes(place[left]),
        right=_lanes(place[right]),
        factor=factor.astype(np.float64),
        targets=_lanes(place[target[ends - 1]]),
        ends=ends.astype(np.int32),
        scalars=_lanes(place[basis.scalars]),
        degree=int(degrees.max()),
        n_moments=int(firsts[-1]) + n_products,
        min_distance=float(min_distance),
        cutoff=float(cutoff),
        scaling=float(scaling),
    )


def _lanes(moments: NDArray[np.integer[Any]]) -> IntArray:
    """Indices of moments as those of their first lane."""
    return np.ascontiguousarray(moments * WIDTH, dtype=np.int32)


def _monomials(degree: int) -> list[Powers]:
    """Powers of x, y and z, by degree and falling powers of x, then y."""
    return [
        (a, b, d - a - b)
        for d in range(degree + 1)
        for a in range(d, -1, -1)
        for b in range(d - a, -1, -1)
    ]


def _summed_monomials(degree: int) -> list[Powers]:
    """Those free of z², in the order in which the kernels form them."""
    return [
        (a, d - c - a, c) for d in range(degree + 1) for c in (0, 1) for a in range(d - c, -1, -1)
    ]


def _differences(degree: int) -> list[tuple[Powers, Powers, Powers, Powers]]:
    """The other monomials by way of z² = 1 − x² − y², those with fewer powers of z first."""
    return [
        ((a, b, c), (a, b, c - 2), (a + 2, b, c - 2), (a, b + 2, c - 2))
        for c in range(2, degree + 1)
        for a in range(degree - c + 1)
        for b in range(degree - c - a + 1)
    ]
