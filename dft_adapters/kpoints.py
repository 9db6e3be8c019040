"""Grids of k points, by one rule for every code."""

from __future__ import annotations

import math

import numpy as np

from hullscreen.potentials.structures import FloatArray


def kpoint_grid(cell: FloatArray, spacing: float) -> tuple[int, int, int]:
    """Γ-centred grid whose points are nowhere farther apart than ``spacing``.

    Parameters
    ----------
    cell
        Lattice vectors as rows in Å, shape (3, 3).
    spacing
        In Å⁻¹, reciprocal vectors without 2π.
    """
    lengths = np.linalg.norm(np.linalg.inv(cell), axis=0)
    # Rounding first: equal axes of a cubic cell must not get different grids.
    first, second, third = (max(1, math.ceil(round(n / spacing, 6))) for n in lengths)
    return first, second, third
