"""A guess of the second derivatives of a metal's energy, from its geometry alone."""

from __future__ import annotations

import numpy as np

from hullscreen.potentials.structures import FloatArray, IndexArray

SQRT2 = np.sqrt(2.0)

# Springs between atoms as stiff as those of the transition metals: B = 2/3 k d²/v is 140 GPa for
# fcc Cu. The evaluations of a relaxation change by less than 5 % for any of these within ±30 %.
SPRING_EV_PER_A2 = 2.3
SPRING_POWER = 8
SPRING_RANGE = 1.75  # in nearest-neighbour distances of fcc at this density: second shells count
# What no central spring gives: resistance to volume, and a floor for soft transverse modes.
VOLUME_STIFFNESS_EV_PER_A3 = 0.2
FLOOR_EV_PER_A2 = 0.25


def strain_matrix(vector: FloatArray) -> FloatArray:
    """Symmetric (3, 3) matrix of six components xx yy zz yz xz xy, shears scaled by √2."""
    xx, yy, zz, yz, xz, xy = vector
    return np.array(
        [
            [xx, xy / SQRT2, xz / SQRT2],
            [xy / SQRT2, yy, yz / SQRT2],
            [xz / SQRT2, yz / SQRT2, zz],
        ]
    )


def strain_vector(matrix: FloatArray) -> FloatArray:
    """Inverse of `strain_matrix`; the scaling makes both inner products equal."""
    return np.array(
        [
            matrix[0, 0],
            matrix[1, 1],
            matrix[2, 2],
            SQRT2 * matrix[1, 2],
            SQRT2 * matrix[0, 2],
            SQRT2 * matrix[0, 1],
        ]
    )


def neighbour_vectors(
    cell: FloatArray, positions: FloatArray, cutoff: float
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """Pairs of atoms nearer than ``cutoff``, each counted from both ends.

    Returns
    -------
    First atom and second atom, both shape (n_pairs,), and the vectors between them in Å,
    shape (n_pairs, 3).
    """
    inverse = np.linalg.inv(cell)
    fractional = positions @ inverse
    difference = fractional[None, :, :] - fractional[:, None, :]
    difference -= np.round(difference)
    # A vector nearer than the cutoff lies within cutoff × |reciprocal vector| lattice planes;
    # the half is what the rounding above leaves.
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + 0.5).astype(int)
    shifts = np.stack(
        np.meshgrid(*[np.arange(-m, m + 1) for m in reach], indexing="ij"), axis=-1
    ).reshape(-1, 3)
    vectors = (difference[:, :, None, :] + shifts) @ cell
    lengths = np.linalg.norm(vectors, axis=-1)
    itself = np.eye(len(positions), dtype=bool)[:, :, None] & ~shifts.any(axis=1)
    first, second, image = np.nonzero((lengths < cutoff) & ~itself)
    return (
        first.astype(np.int64),
        second.astype(np.int64),
        np.asarray(vectors[first, second, image], dtype=np.float64),
    )


def shortest_distance(cell: FloatArray, positions: FloatArray, horizon: float) -> float:
    """Shortest distance between two atoms (images included) in Å, at most ``horizon``."""
    _, _, vectors = neighbour_vectors(cell, positions, horizon)
    return float(np.linalg.norm(vectors, axis=1).min(initial=horizon))


def model_hessian(cell: FloatArray, positions: FloatArray) -> FloatArray:
    """Second derivatives of a spring network in displacements and strain.

    Every pair within range carries a central spring k (d/r)^p, with d the nearest-neighbour
    distance of fcc at the same volume per atom; a volume term and a diagonal floor are added. The
    network knows what a constant diagonal does not: how displacements couple to strain, and which
    distortions are soft.

    Parameters
    ----------
    cell
        Lattice vectors as rows, Å, shape (3, 3).
    positions
        Cartesian positions, Å, shape (n_atoms, 3).

    Returns
    -------
    Symmetric positive definite matrix, shape (3 n_atoms + 6, 3 n_atoms + 6): eV/Å² for the
    displacements (row-major), then eV for the strain in the order of `strain_vector`.

    Notes
    -----
    The idea of a geometric model Hessian: R. Lindh et al., Chem. Phys. Lett. 241, 423 (1995);
    for solids, D. Packwood et al., J. Chem. Phys. 144, 164109 (2016).
    """
    n_atoms = len(positions)
    size = 3 * n_atoms + 6
    volume = abs(np.linalg.det(cell))
    nearest = (SQRT2 * volume / n_atoms) ** (1.0 / 3.0)
    first, second, vectors = neighbour_vectors(cell, positions, SPRING_RANGE * nearest)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 0.5 * nearest)
    unit = vectors / lengths[:, None]
    # An overlap must not make the network so stiff that it cannot be undone.
    springs = SPRING_EV_PER_A2 * np.minimum(nearest / lengths, 1.2) ** SPRING_POWER

    stretch = np.zeros((len(first), size))
    pairs = np.arange(len(first))
    for axis in range(3):
        stretch[pairs, 3 * second + axis] += unit[:, axis]
        stretch[pairs, 3 * first + axis] -= unit[:, axis]
    x, y, z = unit.T
    stretch[:, -6:] = lengths[:, None] * np.stack(
        [x * x, y * y, z * z, SQRT2 * y * z, SQRT2 * x * z, SQRT2 * x * y], axis=1
    )
    hessian: FloatArray = 0.5 * (stretch * springs[:, None]).T @ stretch
    hessian[-6:-3, -6:-3] += VOLUME_STIFFNESS_EV_PER_A3 * volume
    diagonal = np.full(size, FLOOR_EV_PER_A2)
    diagonal[-6:] *= n_atoms * nearest**2
    hessian[np.diag_indices(size)] += diagonal
    return hessian
