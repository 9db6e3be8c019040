"""The pool of prototypes of a campaign: named, scaled to start volumes, small cells first."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IntArray, Structures
from hullscreen.workflows.aflow_prototypes import Decorations, aflow_decorations
from hullscreen.workflows.derivative_structures import colourings, count_colourings
from hullscreen.workflows.element_sizes import element_sizes
from hullscreen.workflows.parent_lattices import LATTICES, ByteArray, parent_lattice
from hullscreen.workflows.start_volumes import scale_to_start_volumes

FEWEST_ELEMENTS, MOST_ELEMENTS = 2, 4

DEFAULT_LATTICES = ("fcc", "bcc", "hcp")


@dataclass(frozen=True, eq=False)
class PrototypeBatch:
    """Consecutive members of a pool.

    Attributes
    ----------
    structures
        At start volumes; species are indices into the pool's elements.
    prototypes
        Name of each, such as ``fcc-6-3-000112`` (lattice, atoms, number of the superlattice,
        species of its sites) or ``aflow-AB_cF8_216_c_a-01`` (AFLOW label, species of A, B, ...).
    first_index
        Place of the first one in the pool.
    """

    structures: Structures
    prototypes: list[str]
    first_index: int


@dataclass(frozen=True, eq=False)
class _Block:
    """Colourings of one geometry: cell (3, 3), positions (n_atoms, 3), kinds (n, n_atoms)."""

    cell: FloatArray
    positions: FloatArray
    kinds: ByteArray | IntArray
    names: list[str]

    def part(self, start: int, stop: int) -> _Block:
        return _Block(self.cell, self.positions, self.kinds[start:stop], self.names[start:stop])


@dataclass(frozen=True)
class PrototypePool:
    """Every prototype of some elements, enumerated on demand; nothing is held in memory.

    Attributes
    ----------
    elements
        Two to four element symbols.
    lattices
        Parents of derivative structures: fcc, bcc, hcp, dhcp, 9R, sc.
    max_atoms
        Most atoms in the cell of a derivative structure.
    aflow
        Whether decorations of AFLOW prototypes belong to the pool.
    aflow_max_atoms
        Most atoms in the primitive cell of an AFLOW prototype.
    elemental_volumes
        Atomic volumes in Å³ that replace the experimental ones in start volumes.

    Raises
    ------
    InputError
        An element or lattice is unknown or named twice, there are too few or too many, or a limit
        is below one.

    Examples
    --------
    >>> PrototypePool(("Cu", "Pd"), max_atoms=4).count()
    {'fcc': 29, 'bcc': 29, 'hcp': 13, 'total': 71}
    """

    elements: tuple[str, ...]
    lattices: tuple[str, ...] = DEFAULT_LATTICES
    max_atoms: int = 8
    aflow: bool = False
    aflow_max_atoms: int = 20
    elemental_volumes: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        _check_elements(self.elements)
        for lattice in self.lattices:
            parent_lattice(lattice)
        _check_different("lattice", self.lattices)
        if not self.lattices and not self.aflow:
            raise InputError("a pool needs at least one lattice, or the AFLOW prototypes")
        for name in ("max_atoms", "aflow_max_atoms"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        element_sizes(self.elements, self.elemental_volumes)

    def count(self) -> dict[str, int]:
        """Members by lattice, of ``aflow`` if they belong to the pool, and in ``total``."""
        n_elements = len(self.elements)
        counts = {
            lattice: sum(
                count_colourings(lattice, n_cells, n_elements)
                for n_cells in range(1, self.max_atoms // parent_lattice(lattice).n_sites + 1)
            )
            for lattice in self.lattices
        }
        if self.aflow:
            counts["aflow"] = len(self._decorations().labels)
        counts["total"] = sum(counts.values())
        return counts

    def left_out(self) -> Mapping[str, str]:
        """AFLOW prototypes and decorations that are no members, each with its reason."""
        return self._decorations().left_out if self.aflow else {}

    def batches(self, size: int = 1000) -> Iterator[PrototypeBatch]:
        """All members in a fixed order: elements, then by atoms per cell, lattice and name.

        Parameters
        ----------
        size
            Members of each batch; the last one may have fewer.
        """
        if size < 1:
            raise InputError(f"size must be at least 1, got {size}")
        waiting: list[_Block] = []
        n_waiting, first_index = 0, 0
        for block in self._blocks():
            start = 0
            while start < len(block.names):
                stop = min(len(block.names), start + size - n_waiting)
                waiting.append(block.part(start, stop))
                n_waiting += stop - start
                start = stop
                if n_waiting == size:
                    yield self._batch(waiting, first_index)
                    first_index += size
                    waiting, n_waiting = [], 0
        if waiting:
            yield self._batch(waiting, first_index)

    def _batch(self, blocks: Sequence[_Block], first_index: int) -> PrototypeBatch:
        structures = scale_to_start_volumes(
            _structures(blocks), self.elements, self.elemental_volumes
        )
        return PrototypeBatch(
            structures, [name for block in blocks for name in block.names], first_index
        )

    def _decorations(self) -> Decorations:
        return aflow_decorations(
            len(self.elements),
            self.aflow_max_atoms,
            dict.fromkeys(self.lattices, self.max_atoms),
        )

    def _blocks(self) -> Iterator[_Block]:
        # The order does not depend on the order in which lattices were named.
        lattices = [lattice for lattice in LATTICES if lattice in self.lattices]
        decorated: dict[int, list[_Block]] = {}
        if self.aflow:
            for block in _decoration_blocks(self._decorations()):
                n_atoms = 0 if (block.kinds == block.kinds[0, 0]).all() else len(block.positions)
                decorated.setdefault(n_atoms, []).append(block)
        for lattice in lattices:
            if parent_lattice(lattice).n_sites <= self.max_atoms:
                yield from _derivative_blocks(lattice, 1, len(self.elements), pure=True)
        yield from decorated.pop(0, [])
        for n_atoms in range(1, max(self.max_atoms, *decorated, 1) + 1):
            for lattice in lattices if n_atoms <= self.max_atoms else ():
                n_cells, rest = divmod(n_atoms, parent_lattice(lattice).n_sites)
                if rest == 0:
                    yield from _derivative_blocks(lattice, n_cells, len(self.elements), pure=False)
            yield from decorated.get(n_atoms, [])


def _derivative_blocks(
    lattice: str, n_cells: int, n_colours: int, *, pure: bool
) -> Iterator[_Block]:
    """Derivative structures of one size, pure elements only or all others."""
    for superlattice, kinds in colourings(lattice, n_cells, n_colours):
        chosen = kinds[(kinds == kinds[:, :1]).all(axis=1) == pure] if n_cells == 1 else kinds
        if n_cells > 1 and pure:
            continue
        n_atoms = superlattice.n_atoms
        digits = (chosen + ord("0")).tobytes().decode("ascii")
        prefix = f"{lattice}-{n_atoms}-{superlattice.number}-"
        names = [prefix + digits[i : i + n_atoms] for i in range(0, len(digits), n_atoms)]
        yield _Block(superlattice.cell, superlattice.positions, chosen, names)


def _decoration_blocks(decorations: Decorations) -> Iterator[_Block]:
    for i, label in enumerate(decorations.labels):
        cell, positions, kinds = decorations.structures.one(i)
        yield _Block(cell, positions, kinds[None, :], [f"aflow-{label}"])


def _structures(blocks: Sequence[_Block]) -> Structures:
    """One batch of all colourings of all blocks."""
    sizes = [len(block.names) for block in blocks]
    offsets = np.zeros(sum(sizes) + 1, dtype=np.int64)
    atoms = [len(block.positions) for block in blocks]
    np.cumsum(np.repeat(atoms, sizes), out=offsets[1:])
    return Structures(
        np.repeat(np.array([block.cell for block in blocks]), sizes, axis=0),
        np.concatenate(
            [np.tile(block.positions, (size, 1)) for block, size in zip(blocks, sizes, strict=True)]
        ),
        np.concatenate([block.kinds.ravel() for block in blocks]).astype(np.int32),
        offsets,
    )


def _check_elements(elements: Sequence[str]) -> None:
    from ase.data import chemical_symbols

    known = chemical_symbols[1:]
    for symbol in elements:
        if symbol not in known:
            near = difflib.get_close_matches(symbol.capitalize(), known, n=1, cutoff=0.0)
            raise InputError(f"{symbol!r} is not an element; the nearest symbol is {near[0]!r}")
    _check_different("element", elements)
    if not FEWEST_ELEMENTS <= len(elements) <= MOST_ELEMENTS:
        raise InputError(
            f"expected {FEWEST_ELEMENTS} to {MOST_ELEMENTS} elements, such as Cu Pd, got "
            f"{len(elements)}: {' '.join(elements) or 'none'}"
        )


def _check_different(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{what} {name} is named more than once; name it once")
