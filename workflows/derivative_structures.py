"""Derivative structures: every distinct colouring of every distinct superlattice of a parent.

Colourings of a superlattice's sites are generated in lexicographic order, digit by digit; a
colouring is kept when no operation that the superlattice keeps (lattice translations times
rotations) gives a smaller one, and a branch is left as soon as its leading digits decide that. No
list of colourings is ever marked, so memory does not grow with their number, and the search can
stop and go on at any point.

Colours are distinguishable (A2B and AB2 both count) and any subset of them may appear.
Superperiodic colourings, those of a smaller cell, are left out.

Sources: G. Hart, R. Forcade, Phys. Rev. B 77, 224115 (2008), and 80, 014120 (2009); G. Hart,
L. Nelson, R. Forcade, Comput. Mater. Sci. 59, 101 (2012) for the group that acts on colourings.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hullscreen.potentials.compiling import exact_kernel
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import IndexArray, IntArray
from hullscreen.workflows.parent_lattices import ByteArray
from hullscreen.workflows.superlattices import Superlattice, superlattices

MAX_COLOURS = 10  # a colour is one digit of a prototype's label


@exact_kernel
def _colourings(
    permutations: IntArray,
    n_translations: int,
    n_colours: int,
    depth: int,
    digits: IndexArray,
    alive: IntArray,
    reached: IntArray,
    n_alive: IndexArray,
    found: ByteArray,
    limit: int,
) -> tuple[int, int]:
    """Go on with the search for canonical colourings; see :class:`_Search` for the state.

    Returns the number found, at most ``limit``, and the depth to go on from (negative: at the end).
    Rows are written to ``found`` unless it is empty.
    """
    n_sites = permutations.shape[1]
    n_found = 0
    while depth >= 0 and n_found < limit:
        digits[depth] += 1
        if digits[depth] == n_colours:
            digits[depth] = -1
            depth -= 1
            continue
        canonical = True
        n_next = 0
        for i in range(n_alive[depth]):
            p = alive[depth, i]
            j = reached[depth, i]
            difference = 0
            while j <= depth:
                source = permutations[p, j]
                if source > depth:
                    break
                difference = digits[source] - digits[j]
                if difference != 0:
                    break
                j += 1
            if difference < 0:
                canonical = False
                break
            if difference == 0:
                alive[depth + 1, n_next] = p
                reached[depth + 1, n_next] = j
                n_next += 1
        if not canonical:
            continue
        if depth < n_sites - 1:
            depth += 1
            n_alive[depth] = n_next
            continue
        # All digits are set: the operations still alive leave this colouring as it is.
        superperiodic = False
        for i in range(n_next):
            if alive[n_sites, i] < n_translations:
                superperiodic = True
                break
        if not superperiodic:
            if len(found) > 0:
                for site in range(n_sites):
                    found[n_found, site] = digits[site]
            n_found += 1
    return n_found, depth


class _Search:
    """Where the search in one superlattice stands.

    ``digits[:depth + 1]`` are set. Row ``d`` of ``alive`` lists the ``n_alive[d]`` permutations
    that the digits before ``d`` do not decide, and ``reached`` how many digits agree so far.
    """

    def __init__(self, superlattice: Superlattice, n_colours: int) -> None:
        n_permutations, n_atoms = superlattice.permutations.shape
        self.superlattice = superlattice
        self.n_colours = n_colours
        self.depth = 0
        self.digits = np.full(n_atoms, -1, dtype=np.int64)
        self.alive = np.zeros((n_atoms + 1, n_permutations), dtype=np.int32)
        self.reached = np.zeros((n_atoms + 1, n_permutations), dtype=np.int32)
        self.n_alive = np.zeros(n_atoms + 1, dtype=np.int64)
        # The identity, first of the translations, decides nothing.
        self.alive[0, : n_permutations - 1] = np.arange(1, n_permutations)
        self.n_alive[0] = n_permutations - 1

    def advance(self, found: ByteArray, limit: int) -> int:
        """Write up to ``limit`` further colourings into ``found`` (if not empty) and count them."""
        n_found, self.depth = _colourings(
            self.superlattice.permutations,
            self.superlattice.n_cells,
            self.n_colours,
            self.depth,
            self.digits,
            self.alive,
            self.reached,
            self.n_alive,
            found,
            limit,
        )
        return int(n_found)


def count_colourings(lattice: str, n_cells: int, n_colours: int) -> int:
    """Number of derivative structures of exactly ``n_cells`` primitive cells.

    Raises
    ------
    InputError
        The lattice is unknown, ``n_cells`` not positive or ``n_colours`` not in 1-10.
    """
    _check_colours(n_colours)
    nothing = np.zeros((0, 0), dtype=np.uint8)
    unlimited = np.iinfo(np.int64).max
    return sum(
        _Search(superlattice, n_colours).advance(nothing, unlimited)
        for superlattice in superlattices(lattice, n_cells)
    )


def colourings(
    lattice: str, n_cells: int, n_colours: int, max_rows: int = 65_536
) -> Iterator[tuple[Superlattice, ByteArray]]:
    """Derivative structures of exactly ``n_cells`` primitive cells, block by block.

    Parameters
    ----------
    lattice
        Name of the parent.
    n_cells
        Primitive cells of the parent in each structure.
    n_colours
        Colours at hand, 1-10; a structure may use fewer.
    max_rows
        Most colourings in a block, which bounds the memory in use.

    Yields
    ------
    A superlattice and colours of its sites, shape (at most max_rows, n_atoms), in lexicographic
    order; superlattices come in the order of their numbers, large ones in several blocks.

    Raises
    ------
    InputError
        The lattice is unknown, ``n_cells`` not positive or ``n_colours`` not in 1-10.

    Examples
    --------
    >>> [labels.tolist() for _, labels in colourings("fcc", 2, 2)]
    [[[0, 1]], [[0, 1]]]
    """
    _check_colours(n_colours)
    for superlattice in superlattices(lattice, n_cells):
        search = _Search(superlattice, n_colours)
        while search.depth >= 0:
            found = np.empty((max_rows, superlattice.n_atoms), dtype=np.uint8)
            n_found = search.advance(found, max_rows)
            if n_found:
                yield superlattice, found[:n_found].copy()


def _check_colours(n_colours: int) -> None:
    if not 1 <= n_colours <= MAX_COLOURS:
        raise InputError(f"n_colours must be between 1 and {MAX_COLOURS}, got {n_colours}")
