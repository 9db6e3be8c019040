"""The lower convex hull of formation energies over compositions: which phases are stable.

Everything here is arrays. A composition is a row of atomic fractions, one column per element;
an entry is a row with its energy per atom. The hull is kept as facets: each is spanned by as many
entries as there are elements and has one chemical potential per element, so that the
hull's energy at any composition ``x`` is the largest ``x · μ`` of all facets (it is convex), and no
facet need be searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.errors import CompositionError
from hullscreen.potentials.structures import FloatArray, IndexArray

BoolArray: TypeAlias = NDArray[np.bool_]

# Absolute, eV/atom. Entries this near the hull count as on it, so that ties and points on a common
# tie line are all stable. A thousand times the rounding of a fit, a millionth of what DFT resolves.
STABLE_TOLERANCE = 1e-9
# Absolute, atomic fraction. Two rows nearer than this are one composition, and a row must sum to
# one within it. Compositions of cells of up to 1,000 atoms differ by 1e-6 at least.
FRACTION_TOLERANCE = 1e-9
# Volume of a facet's composition simplex relative to the whole one. Below it the corners lie on a
# common line or plane (a side wall, not a facet). Facets of 40-atom quaternary cells have 4e-7.
FLAT_FACET = 1e-10
# Proof of a hull: the facets fill the composition simplex (relative to its volume), and no entry
# lies below a facet (relative to the deepest energy). Rounding leaves 1e-14 with real cells.
PROOF_TOLERANCE = 1e-9
# Relative to the deepest formation energy. Less deep is rounding, and is left to the facets above.
NEGLIGIBLE_DEPTH = 1e-13
TOO_NEAR = (
    "expected compositions that are equal or clearly different, as those of atom counts are; came "
    "some so near each other that the hull between them cannot be told from rounding; "
    "compute fractions as atom counts divided by their sum"
)
# Bytes of the (compositions, facets) table held at once.
CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Hull:
    """Lower convex hull of a set of entries.

    Attributes
    ----------
    fractions
        Atomic fractions, shape (n_entries, n_elements).
    formation_energies
        Relative to the lowest pure elements, in eV/atom, shape (n_entries,).
    energies_above_hull
        Distance to the hull in eV/atom, shape (n_entries,); never negative.
    stable
        Entries within ``STABLE_TOLERANCE`` of the hull, ties included, shape (n_entries,).
    vertices
        One entry for each corner of the hull, ascending, shape (n_vertices,).
    facets
        Entries at the corners of each facet, shape (n_facets, n_elements).
    chemical_potentials
        Of each element on each facet, relative to the pure element, in eV/atom,
        shape (n_facets, n_elements).
    """

    fractions: FloatArray
    formation_energies: FloatArray
    energies_above_hull: FloatArray
    stable: BoolArray
    vertices: IndexArray
    facets: IndexArray
    chemical_potentials: FloatArray

    def hull_energy_at(self, fractions: FloatArray) -> FloatArray:
        """The hull's formation energy at any compositions.

        Parameters
        ----------
        fractions
            Atomic fractions, shape (n, n_elements).

        Returns
        -------
        Energies in eV/atom relative to this hull's pure elements, shape (n,).

        Raises
        ------
        CompositionError
            A row does not sum to one, holds a negative number, or has the wrong length.
        """
        rows = _checked_fractions(fractions, n_elements=self.fractions.shape[1])
        return _upper_envelope(rows, self.chemical_potentials)

    def decomposition(self, entry: int) -> dict[int, float]:
        """Stable entries that ``entry`` decomposes to, with their shares of the atoms.

        A stable entry stays what it is: ``{entry: 1.0}``.
        """
        if self.stable[entry]:
            return {int(entry): 1.0}
        return self.decomposition_at(self.fractions[entry])

    def decomposition_at(self, fractions: FloatArray) -> dict[int, float]:
        """Entries in equilibrium at one composition, with their shares of the atoms.

        Parameters
        ----------
        fractions
            Atomic fractions, shape (n_elements,).

        Returns
        -------
        ``{entry: share}``; the shares are positive and sum to one.
        """
        row = _checked_fractions(fractions[None, :], n_elements=self.fractions.shape[1])[0]
        corners = self.fractions[self.facets]
        shares = np.linalg.solve(
            corners.transpose(0, 2, 1), np.broadcast_to(row, self.facets.shape)[..., None]
        )[..., 0]
        facet = int(np.argmax(shares.min(axis=1)))
        kept = np.where(shares[facet] > FRACTION_TOLERANCE, shares[facet], 0.0)
        kept /= kept.sum()
        return {
            int(i): float(share)
            for i, share in zip(self.facets[facet], kept, strict=True)
            if share > 0
        }


def formation_energies(counts: IndexArray, energies_per_atom: FloatArray) -> FloatArray:
    """Energy of each entry relative to the lowest entries of the pure elements.

    Parameters
    ----------
    counts
        Atoms (or fractions) of each element, shape (n_entries, n_elements).
    energies_per_atom
        Total energies in eV/atom, shape (n_entries,).

    Returns
    -------
    Formation energies in eV/atom, shape (n_entries,); exactly zero for the lowest pure entries.

    Raises
    ------
    CompositionError
        A pure element is missing, a row is empty, or an energy is not finite.

    Examples
    --------
    >>> formation_energies(np.array([[1, 0], [0, 2], [1, 1]]), np.array([-3.0, -4.0, -3.75]))
    array([ 0.  ,  0.  , -0.25])
    """
    amounts = np.asarray(counts, dtype=np.float64)
    if amounts.ndim != 2 or not (amounts.sum(axis=1) > 0).all():
        raise CompositionError(
            f"expected atom counts of shape (n_entries, n_elements) with an atom in each row, "
            f"came an array of shape {amounts.shape}"
            + ("" if amounts.ndim != 2 else f" whose row {_first_empty(amounts)} is empty")
        )
    fractions = _checked_fractions(amounts / amounts.sum(axis=1, keepdims=True))
    energies = _checked_energies(energies_per_atom, len(fractions))
    return _relative_to_elements(fractions, energies, _lowest_elements(fractions, energies))


def energy_above_hull(fractions: FloatArray, energies: FloatArray) -> FloatArray:
    """Distance of each entry to the lower convex hull.

    Parameters
    ----------
    fractions
        Atomic fractions, shape (n_entries, n_elements); each row sums to one.
    energies
        Formation or total energies in eV/atom (the distance is the same), shape (n_entries,).

    Returns
    -------
    Distances in eV/atom, shape (n_entries,); zero on the hull, never negative.

    Raises
    ------
    CompositionError
        A row does not sum to one, a pure element is missing, or an energy is not finite.
    """
    return convex_hull(fractions, energies).energies_above_hull


def convex_hull(fractions: FloatArray, energies: FloatArray) -> Hull:
    """Lower convex hull of entries of two or more elements.

    Parameters
    ----------
    fractions
        Atomic fractions, shape (n_entries, n_elements); each row sums to one.
    energies
        Formation or total energies in eV/atom, shape (n_entries,).

    Raises
    ------
    CompositionError
        A row does not sum to one, a pure element is missing, an energy is not finite, or
        compositions differ by so little that the hull is lost in rounding.

    Notes
    -----
    Every result is proved: the facets fill the composition simplex and no entry undercuts them.
    Only the lowest entry of each composition, below the line of the elements, goes to Qhull.
    Source: Barber, Dobkin, Huhdanpaa, ACM TOMS 22, 469 (1996).
    """
    rows = _checked_fractions(fractions)
    values = _checked_energies(energies, len(rows))
    lowest, composition = _lowest_per_composition(rows, values)
    elements = _lowest_elements(rows, values)
    formation = _relative_to_elements(rows, values, elements)
    facets = _lower_facets(rows, formation, lowest, elements)
    potentials = _chemical_potentials(rows, formation, facets)
    above: FloatArray = formation - _upper_envelope(rows[lowest], potentials)[composition]
    np.maximum(above, 0.0, out=above)
    vertices = np.unique(facets)
    above[vertices] = 0.0
    return Hull(
        fractions=rows,
        formation_energies=formation,
        energies_above_hull=above,
        stable=above <= STABLE_TOLERANCE,
        vertices=vertices,
        facets=facets,
        chemical_potentials=potentials,
    )


def _lower_facets(
    rows: FloatArray, formation: FloatArray, lowest: IndexArray, elements: IndexArray
) -> IndexArray:
    """Entries at the corners of the facets seen from below, shape (n_facets, n_elements)."""
    depth = -float(formation[lowest].min())
    compounds = lowest[formation[lowest] < -NEGLIGIBLE_DEPTH * max(depth, 1.0)]
    compounds = compounds[~np.isin(compounds, elements)]
    if not len(compounds):
        return elements[None, :]
    from scipy.spatial import ConvexHull, QhullError

    # One point high above the middle closes the hull from above: Qhull never meets a flat set,
    # and every facet without that point, side walls apart, is a facet of the lower hull.
    entries = np.concatenate([elements, compounds])
    n_elements = rows.shape[1]
    points = np.empty((len(entries) + 1, n_elements))
    points[:-1, :-1] = rows[entries, :-1]
    points[:-1, -1] = formation[entries] / depth
    points[-1] = 1.0 / n_elements
    points[-1, -1] = 1.0
    try:
        simplices = ConvexHull(points).simplices
    except QhullError as error:
        raise CompositionError(TOO_NEAR) from error
    below = simplices[(simplices < len(entries)).all(axis=1)]
    facets = entries[below]
    volumes = np.abs(np.linalg.det(rows[facets]))
    facets = np.sort(facets[volumes > FLAT_FACET], axis=1)
    potentials = _chemical_potentials(rows, formation, facets)
    undercut = _upper_envelope(rows[entries], potentials) - formation[entries]
    if abs(volumes.sum() - 1.0) > PROOF_TOLERANCE or undercut.max() > PROOF_TOLERANCE * depth:
        raise CompositionError(TOO_NEAR)
    return facets


def _chemical_potentials(rows: FloatArray, formation: FloatArray, facets: IndexArray) -> FloatArray:
    """Potentials whose plane holds the corners of each facet, shape (n_facets, n_elements)."""
    solved = np.linalg.solve(rows[facets], formation[facets][..., None])[..., 0]
    return np.asarray(solved, dtype=np.float64)


def _upper_envelope(rows: FloatArray, potentials: FloatArray) -> FloatArray:
    """Largest ``row · potential`` for each row, in chunks of bounded memory."""
    step = max(1, CHUNK_BYTES // (8 * len(potentials)))
    parts = [
        (rows[start : start + step] @ potentials.T).max(axis=1)
        for start in range(0, len(rows), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _lowest_per_composition(
    rows: FloatArray, energies: FloatArray
) -> tuple[IndexArray, IndexArray]:
    """The lowest entry of each composition, and each entry's composition as an index into them."""
    keys = np.rint(rows[:, :-1] / FRACTION_TOLERANCE).astype(np.int64)
    order = np.lexsort((energies, *keys.T))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    composition = np.empty(len(order), dtype=np.int64)
    composition[order] = np.cumsum(first) - 1
    return order[first], composition


def _lowest_elements(rows: FloatArray, energies: FloatArray) -> IndexArray:
    """The lowest entry of each pure element, shape (n_elements,)."""
    found = []
    for i_element in range(rows.shape[1]):
        pure = np.flatnonzero(rows[:, i_element] > 1.0 - FRACTION_TOLERANCE)
        if not len(pure):
            raise CompositionError(
                f"expected an entry of each pure element as a reference, but none of "
                f"{len(rows)} entries is pure element number {i_element} (counted from 0); add one"
            )
        found.append(pure[np.argmin(energies[pure])])
    return np.array(found, dtype=np.int64)


def _relative_to_elements(
    rows: FloatArray, energies: FloatArray, elements: IndexArray
) -> FloatArray:
    relative = energies - rows @ energies[elements]
    relative[elements] = 0.0
    return relative


def _checked_fractions(fractions: FloatArray, n_elements: int | None = None) -> FloatArray:
    rows = np.ascontiguousarray(fractions, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != (n_elements or rows.shape[1]) or rows.shape[1] < 1:
        raise CompositionError(
            f"expected fractions of shape (n, {n_elements or 'n_elements'}), came {rows.shape}"
        )
    wrong = ~(np.abs(rows.sum(axis=1) - 1.0) <= FRACTION_TOLERANCE)
    wrong |= ~(rows >= -FRACTION_TOLERANCE).all(axis=1)
    if wrong.any():
        i_row = int(np.argmax(wrong))
        raise CompositionError(
            f"expected atomic fractions that are not negative and sum to one, "
            f"came {rows[i_row].tolist()} in row {i_row}; divide atom counts by their sum"
        )
    return rows


def _checked_energies(energies: FloatArray, n_entries: int) -> FloatArray:
    values = np.asarray(energies, dtype=np.float64)
    if values.shape != (n_entries,):
        raise CompositionError(
            f"expected one energy for each of {n_entries} entries, came shape {values.shape}"
        )
    if not np.isfinite(values).all():
        i_row = int(np.argmin(np.isfinite(values)))
        raise CompositionError(
            f"expected finite energies, came {values[i_row]} for entry {i_row}; leave it out"
        )
    return values


def _first_empty(amounts: FloatArray) -> int:
    return int(np.argmin(amounts.sum(axis=1) > 0))
