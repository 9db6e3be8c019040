"""Volumes at which prototypes enter their first relaxation.

Two estimates err in opposite directions on ordered alloys: the sum of elemental volumes is too
large where unlike bonds are short (4-15 % on aluminides), bond lengths mined from known compounds
(data-mined lattice scaling, DLS) give too little by about as much. Their mean is used.

Mined radii miss pure elements by up to 40 % in volume (they come from compounds), so the less mixed
a structure is, the more its radii are drawn to those of touching spheres in the close-packed
element: pure fcc and hcp get their elemental volumes exactly, equiatomic alloys the plain mean.
On 31 ordered alloys the root mean square error is 5.0 %; additive volumes alone give 7.4 %. The
largest are those of ferromagnets: FeCo starts 14 % and Ni3Fe 11 % too small.

Source of DLS: I.-H. Chu, S. Roychowdhury, D. Han, A. Jain, S. P. Ong, Comput. Mater. Sci. 146, 184
(2018); parameters as shipped with pymatgen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hullscreen.potentials.compiling import exact_kernel
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray, Structures
from hullscreen.workflows.element_sizes import CLOSEST_PACKING, ElementSizes, element_sizes

# DLS counts up to this factor of the additive volume. Derivative structures stay within 0.8-1.8;
# graphite, molecular solids and other open prototypes of nonmetals ask for 2-27 times more, which
# metals would fill at once.
LARGEST_DLS_RATIO = 2.5

# No bond starts shorter than this part of its expected length: the dimers of those prototypes
# would, and nothing can be learnt from metal atoms 1 Å apart.
SHORTEST_BOND = 0.75


@exact_kernel
def _image_bounds(cell: FloatArray, cutoff: float, bounds: IndexArray) -> None:
    """Cell repeats that hold all neighbours within ``cutoff`` of atoms inside the cell."""
    volume = abs(np.linalg.det(cell))
    for i in range(3):
        normal = np.cross(cell[(i + 1) % 3], cell[(i + 2) % 3])
        height = volume / math.sqrt((normal**2).sum())
        # One more: atoms of the home cell lie up to a height apart.
        bounds[i] = math.floor(cutoff / height) + 1


@exact_kernel
def _same_geometry(
    cells: FloatArray, positions: FloatArray, offsets: IndexArray, first: int, second: int
) -> bool:
    """Whether two structures differ in their species at most."""
    n_atoms = offsets[second + 1] - offsets[second]
    if offsets[first + 1] - offsets[first] != n_atoms:
        return False
    for i in range(3):
        for j in range(3):
            if cells[first, i, j] != cells[second, i, j]:
                return False
    for atom in range(n_atoms):
        for i in range(3):
            if positions[offsets[first] + atom, i] != positions[offsets[second] + atom, i]:
                return False
    return True


@exact_kernel
def _shortest_distances(
    cell: FloatArray, positions: FloatArray, cutoff: float, shortest: FloatArray
) -> None:
    """Shortest distance within ``cutoff`` between each pair of sites (with itself: to an image).

    ``shortest`` has shape (n_atoms, n_atoms) and is infinite where there is none.
    """
    n_atoms = len(positions)
    bounds = np.zeros(3, dtype=np.int64)
    _image_bounds(cell, cutoff, bounds)
    shortest[:n_atoms, :n_atoms] = np.inf
    for x in range(-bounds[0], bounds[0] + 1):
        for y in range(-bounds[1], bounds[1] + 1):
            for z in range(-bounds[2], bounds[2] + 1):
                for first in range(n_atoms):
                    for second in range(first, n_atoms):
                        if first == second and x == 0 and y == 0 and z == 0:
                            continue
                        square = 0.0
                        for i in range(3):
                            shift = x * cell[0, i] + y * cell[1, i] + z * cell[2, i]
                            step = positions[second, i] - positions[first, i] + shift
                            square += step * step
                        if square <= cutoff * cutoff:
                            distance = math.sqrt(square)
                            if distance < shortest[first, second]:
                                shortest[first, second] = distance
                                shortest[second, first] = distance


@exact_kernel
def _bond_length_volumes(
    cells: FloatArray,
    positions: FloatArray,
    species: IntArray,
    offsets: IndexArray,
    radii: FloatArray,
    radius_slopes: FloatArray,
    pure_stretches: FloatArray,
    electronegativities: FloatArray,
    volumes: FloatArray,
) -> None:
    """Volume of each cell at which no bond is shorter than the sum of its radii."""
    n_elements = len(radii)
    n_largest = 0
    for i in range(len(cells)):
        n_largest = max(n_largest, offsets[i + 1] - offsets[i])
    shortest = np.zeros((n_largest, n_largest))
    # The widest ratio of bond lengths that any structure can ask for bounds the neighbour search.
    # Radii change monotonically with spread and likeness, so their extremes are at the corners.
    largest_std = (electronegativities.max() - electronegativities.min()) / 2.0
    widest, narrowest = 0.0, np.inf
    for i in range(n_elements):
        for std in (0.0, largest_std):
            for likeness in (0.0, 1.0):
                radius = (radii[i] + radius_slopes[i] * std) * pure_stretches[i] ** likeness
                widest = max(widest, radius)
                narrowest = min(narrowest, radius)
    reach = CLOSEST_PACKING * widest / narrowest * 1.001  # rounding at the bound itself
    fractions = np.zeros(n_elements)
    element_radii = np.zeros(n_elements)
    for i_structure in range(len(cells)):
        start, end = offsets[i_structure], offsets[i_structure + 1]
        n_atoms = end - start
        volume = abs(np.linalg.det(cells[i_structure]))
        # Derivative structures come in long runs with one geometry.
        if i_structure == 0 or not _same_geometry(
            cells, positions, offsets, i_structure - 1, i_structure
        ):
            cutoff = reach * (volume / n_atoms) ** (1.0 / 3.0)
            _shortest_distances(cells[i_structure], positions[start:end], cutoff, shortest)
        fractions[:] = 0.0
        for atom in range(start, end):
            fractions[species[atom]] += 1.0 / n_atoms
        mean, variance, mixing = 0.0, 0.0, 1.0
        for i in range(n_elements):
            mean += fractions[i] * electronegativities[i]
            mixing -= fractions[i] ** 2
        for i in range(n_elements):
            variance += fractions[i] * (electronegativities[i] - mean) ** 2
        likeness = 1.0 - min(1.0, 2.0 * mixing)
        for i in range(n_elements):
            radius = radii[i] + radius_slopes[i] * math.sqrt(variance)
            element_radii[i] = radius * pure_stretches[i] ** likeness
        largest = 0.0
        for first in range(n_atoms):
            radius = element_radii[species[start + first]]
            for second in range(first, n_atoms):
                length = radius + element_radii[species[start + second]]
                largest = max(largest, length / shortest[first, second])
        volumes[i_structure] = volume * largest**3


def additive_volumes(structures: Structures, sizes: ElementSizes) -> FloatArray:
    """Sum of the elements' atomic volumes in Å³ per cell, shape (n_structures,)."""
    volumes: FloatArray = structures.counts(len(sizes.volumes)) @ sizes.volumes
    return volumes


def bond_length_volumes(structures: Structures, sizes: ElementSizes) -> FloatArray:
    """Volumes in Å³ per cell at which the tightest bond has its length, shape (n_structures,).

    DLS, but for the stretch of radii towards the pure elements' (see the module's notes).
    """
    volumes = np.zeros(len(structures))
    if len(structures):
        _bond_length_volumes(
            structures.cells,
            structures.positions,
            structures.species,
            structures.offsets,
            sizes.radii,
            sizes.radius_slopes,
            sizes.pure_stretches,
            sizes.electronegativities,
            volumes,
        )
    return volumes


def start_volumes(structures: Structures, sizes: ElementSizes) -> FloatArray:
    """Mean of the additive and the (bounded) DLS volume in Å³ per cell, shape (n_structures,)."""
    additive = additive_volumes(structures, sizes)
    mined = bond_length_volumes(structures, sizes)
    mean = 0.5 * (additive + np.minimum(mined, LARGEST_DLS_RATIO * additive))
    volumes: FloatArray = np.maximum(mean, SHORTEST_BOND**3 * mined)
    return volumes


def scale_to_start_volumes(
    structures: Structures,
    elements: Sequence[str],
    elemental_volumes: Mapping[str, float] | None = None,
) -> Structures:
    """The same structures, each scaled uniformly to its start volume.

    Parameters
    ----------
    structures
        Cells of any volume; species are indices into ``elements``.
    elements
        Element symbols.
    elemental_volumes
        Atomic volumes in Å³ that replace the experimental ones.

    Raises
    ------
    InputError
        An elemental volume is unknown or not positive.
    """
    wanted = start_volumes(structures, element_sizes(elements, elemental_volumes))
    factors = np.cbrt(wanted / structures.volumes)
    per_atom = np.repeat(factors, structures.n_atoms)
    return Structures(
        structures.cells * factors[:, None, None],
        structures.positions * per_atom[:, None],
        structures.species,
        structures.offsets,
    )
