"""Two hulls of one system compared: at every composition, and by their stable structures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hullscreen.potentials.structures import FloatArray, IndexArray, Structures
from hullscreen.workflows.hull import Hull, convex_hull
from hullscreen.workflows.same_basin import same_crystal
from hullscreen.workflows.screening import TIE

SAME_CRYSTAL = "same crystal"
A_TIE = "tie"
# The campaign has something lower there, into which no relaxation of brute force fell.
UNDERCUT = "undercut by the campaign"


@dataclass(frozen=True, eq=False)
class Phases:
    """Relaxed structures with DFT energies, and their hull.

    Attributes
    ----------
    indices
        Places in the pool, shape (n,).
    counts
        Atoms of each element, shape (n, n_elements).
    energies_per_atom
        Absolute, eV/atom, shape (n,).
    structures
        Where the relaxations ended.
    """

    indices: IndexArray
    counts: IndexArray
    energies_per_atom: FloatArray
    structures: Structures

    @property
    def fractions(self) -> FloatArray:
        """Atomic fractions, shape (n, n_elements)."""
        return fractions_of(self.counts)

    @cached_property
    def hull(self) -> Hull:
        """The lower convex hull; `CompositionError` if an element is missing."""
        return convex_hull(self.fractions, self.energies_per_atom)

    def hull_energies(self, fractions: FloatArray) -> FloatArray:
        """Absolute energies of the hull in eV/atom at compositions (n, n_elements), shape (n,)."""
        formation = self.hull.hull_energy_at(fractions)
        pure = [self.energies_per_atom[column == 1.0].min() for column in self.fractions.T]
        energies: FloatArray = formation + fractions @ np.array(pure)
        return energies


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well a campaign's hull agrees with brute force.

    Attributes
    ----------
    compositions
        Atoms of each element, reduced, of every composition of the pool, shape (n, n_elements).
    differences
        The campaign's hull minus brute force's there, absolute energies in eV/atom, shape (n,).
    found
        How each corner of brute force's hull was found, ``same crystal`` or ``tie``, by its place
        among brute force's phases; ``undercut by the campaign`` where the campaign's hull is the
        lower one, so that it is not stable; empty if it was missed.
    """

    compositions: IndexArray
    differences: FloatArray
    found: dict[int, str]

    @property
    def recall(self) -> float:
        """Share found of the structures that are stable by both hulls together."""
        stable = [how for how in self.found.values() if how != UNDERCUT]
        return sum(map(bool, stable)) / len(stable) if stable else 1.0

    @property
    def largest(self) -> int:
        """Place of the composition where the hulls differ most."""
        return int(np.argmax(np.abs(self.differences)))


def compare(reference: Phases, campaign: Phases, counts: IndexArray) -> Comparison:
    """Compare hulls at every composition of ``counts`` (n, n_elements), and stable structures.

    Raises
    ------
    CompositionError
        One of the two lacks a pure element.
    """
    compositions = np.unique(reduced(counts), axis=0)
    at = fractions_of(compositions)
    return Comparison(
        compositions,
        campaign.hull_energies(at) - reference.hull_energies(at),
        {int(v): how_found(reference, int(v), campaign) for v in reference.hull.vertices},
    )


def how_found(reference: Phases, place: int, campaign: Phases) -> str:
    """As what a stable structure is among a campaign's stable or tied ones; "" if it is missing.

    Phases of one composition that tie within `TIE` count as one where the hulls agree within it.
    """
    composition = reduced(reference.counts[place : place + 1])
    at = fractions_of(composition)
    hulls = float((campaign.hull_energies(at) - reference.hull_energies(at))[0])
    alike = (reduced(campaign.counts) == composition).all(axis=1)
    candidates = np.flatnonzero(alike & (campaign.hull.energies_above_hull <= TIE))
    ours = reference.structures.one(place)
    if any(same_crystal(*ours, *campaign.structures.one(int(i))) for i in candidates):
        return SAME_CRYSTAL
    if hulls < -TIE:
        return UNDERCUT
    energies = campaign.energies_per_atom[candidates] - reference.energies_per_atom[place]
    return A_TIE if np.abs(energies).min(initial=np.inf) <= TIE and abs(hulls) <= TIE else ""


def fractions_of(counts: IndexArray) -> FloatArray:
    """Atomic fractions of atom counts (n, n_elements)."""
    fractions: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return fractions


def reduced(counts: IndexArray) -> IndexArray:
    """Counts (n, n_elements) divided by what all of a row can be divided by."""
    smallest: IndexArray = counts // np.gcd.reduce(counts, axis=1, keepdims=True)
    return smallest
