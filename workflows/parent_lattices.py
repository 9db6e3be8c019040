"""The parent lattices whose sites derivative structures colour, and their space groups as integers.

Cells are scaled to one cubic Å per atom; ideal axial ratios are used for the stacking variants.
"""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray

ByteArray: TypeAlias = NDArray[np.uint8]

# Relative to |a|², and to lattice coordinates: rounding of exact parents is 1e-15, and images of
# different lattice vectors or sites differ by more than 0.1.
SAME_LENGTH = 1e-8
SAME_SITE = 1e-8

# Layer height of touching spheres in units of their diameter.
CLOSE_PACKED_LAYER_HEIGHT = np.sqrt(2.0 / 3.0)


@dataclass(frozen=True, eq=False)
class ParentLattice:
    """A primitive cell with sites that are all equivalent up to colouring.

    Attributes
    ----------
    name
        As on the command line: ``fcc``, ``bcc``, ``hcp``, ``dhcp``, ``9R``, ``sc``.
    cell
        Primitive lattice vectors as rows in Å, shape (3, 3), one Å³ per site.
    sites
        Lattice coordinates of the sites, shape (n_sites, 3).
    rotations
        Rotation of each space group operation on column vectors of lattice coordinates,
        shape (n_operations, 3, 3); the identity is first.
    site_images
        Operation ``o`` moves site ``s`` of the home cell onto site ``site_images[o, s]`` ...
    site_shifts
        ... of the cell at ``site_shifts[o, s]``; shapes (n_operations, n_sites) and
        (n_operations, n_sites, 3).
    """

    name: str
    cell: FloatArray
    sites: FloatArray
    rotations: IndexArray
    site_images: IndexArray
    site_shifts: IndexArray

    @property
    def n_sites(self) -> int:
        """Sites in the primitive cell."""
        return len(self.sites)


def parent_lattice(name: str) -> ParentLattice:
    """The parent lattice called ``name``.

    Raises
    ------
    InputError
        No parent has that name; the message gives the nearest one.
    """
    if name not in _BUILDERS:
        near = {known.lower(): known for known in _BUILDERS}
        guess = difflib.get_close_matches(name.lower(), near, n=1, cutoff=0.0)[0]
        raise InputError(
            f"lattice {name!r} is unknown; the nearest known one is {near[guess]!r} "
            f"(known: {', '.join(_BUILDERS)})"
        )
    return _built(name)


@cache
def _built(name: str) -> ParentLattice:
    cell, sites = _BUILDERS[name]()
    cell = cell * (len(sites) / abs(np.linalg.det(cell))) ** (1.0 / 3.0)
    rotations, images, shifts = space_group(cell, sites)
    return ParentLattice(name, cell, sites, rotations, images, shifts)


def lattice_rotations(cell: FloatArray) -> IndexArray:
    """Integer matrices that map a lattice onto itself and keep all lengths and angles.

    Parameters
    ----------
    cell
        Lattice vectors as rows, shape (3, 3).

    Returns
    -------
    Matrices acting on columns of lattice coordinates, shape (n_rotations, 3, 3), identity first.
    """
    metric = cell @ cell.T
    longest = np.sqrt(metric.diagonal().max())
    # |x_i| <= |v| |a*_i| for a lattice vector v with coordinates x.
    bounds = np.ceil(longest * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    ranges = [np.arange(-bound, bound + 1) for bound in bounds]
    vectors = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    squares = np.einsum("vi,ij,vj->v", vectors, metric, vectors)
    tolerance = SAME_LENGTH * longest**2
    candidates = [vectors[np.abs(squares - metric[i, i]) < tolerance] for i in range(3)]
    found = []
    for columns in itertools.product(*candidates):
        matrix = np.array(columns).T
        if np.abs(matrix.T @ metric @ matrix - metric).max() < tolerance:
            found.append(matrix)
    found.sort(key=lambda matrix: not np.array_equal(matrix, np.eye(3)))
    return np.array(found, dtype=np.int64)


def space_group(cell: FloatArray, sites: FloatArray) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Space group operations of a primitive cell whose sites are all of one kind.

    Parameters
    ----------
    cell
        Lattice vectors as rows, shape (3, 3).
    sites
        Lattice coordinates, shape (n_sites, 3).

    Returns
    -------
    ``rotations``, ``site_images``, ``site_shifts`` as in :class:`ParentLattice`.

    Raises
    ------
    InputError
        The cell is not primitive: a pure translation maps its sites onto one another.
    """
    rotations: list[IndexArray] = []
    images: list[IndexArray] = []
    shifts: list[FloatArray] = []
    for rotation in lattice_rotations(cell):
        moved = sites @ rotation.T
        for target in sites:
            difference = moved[:, None, :] + (target - moved[0]) - sites[None, :, :]
            cells = np.round(difference)
            same = np.abs(difference - cells).max(axis=2) < SAME_SITE
            if not same.any(axis=1).all():
                continue
            if rotations and np.array_equal(rotations[-1], rotation):
                raise InputError("the parent cell must be primitive; it holds a pure translation")
            image = same.argmax(axis=1)
            rotations.append(rotation)
            images.append(image)
            shifts.append(cells[np.arange(len(sites)), image])
    return (
        np.array(rotations, dtype=np.int64),
        np.array(images, dtype=np.int64),
        np.array(shifts, dtype=np.int64),
    )


def _face_centred() -> tuple[FloatArray, FloatArray]:
    return np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]), np.zeros((1, 3))


def _body_centred() -> tuple[FloatArray, FloatArray]:
    return np.array([[-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, -1.0]]), np.zeros((1, 3))


def _simple_cubic() -> tuple[FloatArray, FloatArray]:
    return np.eye(3), np.zeros((1, 3))


def _stacked(layers: str, period_shift: int = 0) -> tuple[FloatArray, FloatArray]:
    """Close-packed ``layers`` (A, B, C), of which each period lies ``period_shift`` letters on."""
    height = CLOSE_PACKED_LAYER_HEIGHT
    in_plane = np.array([[1.0, 0.0, 0.0], [-0.5, np.sqrt(0.75), 0.0]])
    step = in_plane[0] / 3.0 + in_plane[1] * 2.0 / 3.0
    period = step * period_shift + np.array([0.0, 0.0, height * len(layers)])
    cell = np.vstack([in_plane, period])
    positions = np.array(
        [
            step * "ABC".index(letter) + np.array([0.0, 0.0, height * i])
            for i, letter in enumerate(layers)
        ]
    )
    return cell, positions @ np.linalg.inv(cell)


_BUILDERS = {
    "fcc": _face_centred,
    "bcc": _body_centred,
    "hcp": lambda: _stacked("AB"),
    "dhcp": lambda: _stacked("ABAC"),
    # ABABCBCAC: every three layers repeat one letter on, so the primitive cell holds three.
    "9R": lambda: _stacked("ABA", period_shift=1),
    "sc": _simple_cubic,
}

LATTICES = tuple(_BUILDERS)
