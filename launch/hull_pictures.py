"""What a picture of a hull shows, whoever draws it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray
from hullscreen.workflows.hull import FRACTION_TOLERANCE, BoolArray, convex_hull

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True, slots=True, eq=False)
class HullPicture:
    """What a picture of a hull shows.

    Attributes
    ----------
    elements
        Symbols, two to four.
    fractions
        Atomic fractions of the entries, shape (n_entries, n_elements).
    formation_energies
        In eV/atom, shape (n_entries,).
    labels
        A formula for each entry (``Cu3Pd``); those of stable entries are shown.
    is_stable
        Shape (n_entries,).
    energy_above_hull
        In eV/atom, shape (n_entries,).
    title
        Above the picture.
    method
        What gave the energies of the entries, for the legend.
    background
        Fractions (n, n_elements) and formation energies (n,) of structures shown lightly, such as
        everything the potential relaxed.
    """

    elements: Sequence[str]
    fractions: FloatArray
    formation_energies: FloatArray
    labels: Sequence[str]
    is_stable: BoolArray
    energy_above_hull: FloatArray
    title: str = ""
    method: str = "DFT"
    background: tuple[FloatArray, FloatArray] | None = None

    def __post_init__(self) -> None:
        n_entries, n_elements = len(self.labels), len(self.elements)
        if not 2 <= n_elements <= 4:
            raise InputError(
                f"expected two to four elements in a picture of a hull, "
                f"came {', '.join(self.elements) or 'none'}"
            )
        shapes = {
            "fractions": (np.shape(self.fractions), (n_entries, n_elements)),
            "formation_energies": (np.shape(self.formation_energies), (n_entries,)),
            "is_stable": (np.shape(self.is_stable), (n_entries,)),
            "energy_above_hull": (np.shape(self.energy_above_hull), (n_entries,)),
        }
        if self.background is not None:
            n_others = len(self.background[1])
            shapes["background"] = (np.shape(self.background[0]), (n_others, n_elements))
        for name, (came, expected) in shapes.items():
            if came != expected:
                raise InputError(f"expected {name} of shape {expected} in a picture, came {came}")


def labelled(picture: HullPicture) -> list[int]:
    """Numbers of stable entries, one for each label."""
    first: dict[str, int] = {}
    for i in np.flatnonzero(picture.is_stable).tolist():
        first.setdefault(picture.labels[i], i)
    return list(first.values())


def is_pure(picture: HullPicture, entry: int) -> bool:
    """Whether an entry is an element."""
    return bool(np.max(picture.fractions[entry]) > 1.0 - FRACTION_TOLERANCE)


def tie_lines(picture: HullPicture) -> IndexArray:
    """Pairs of entries joined by an edge of a facet, shape (n_lines, 2)."""
    facets = convex_hull(picture.fractions, picture.formation_energies).facets
    edges = [facets[:, [i, j]] for i, j in pairs(facets.shape[1])]
    return np.unique(np.concatenate(edges), axis=0)


def pairs(n: int) -> Iterator[tuple[int, int]]:
    """Every two of ``n`` numbers, the smaller one first."""
    return ((i, j) for i in range(n) for j in range(i + 1, n))


def with_subscripts(formula: str) -> str:
    """``Cu3Pd`` as it is printed, ``Cu₃Pd``.

    Examples
    --------
    >>> with_subscripts("Al12Ni5")
    'Al₁₂Ni₅'
    """
    return re.sub(r"(?<=[A-Za-z)])\d+", lambda found: found[0].translate(SUBSCRIPTS), formula)
