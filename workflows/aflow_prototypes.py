"""Decorations of the AFLOW prototypes that pymatgen ships: crystals that no parent lattice gives.

Every assignment of different colours to the species of a prototype is a decoration, unless it is
the same crystal as an earlier one (up to a scale: zincblende AB is zincblende BA), or a derivative
structure that the pool holds already (L1_2 of fcc). What is left out is listed with its reason.

Source: M. Mehl et al., Comput. Mater. Sci. 136, S1 (2017), read from pymatgen's
``analysis/prototypes/aflow_prototypes.json.gz``.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IntArray, Structures, join
from hullscreen.workflows.crystal_matching import crystals_match
from hullscreen.workflows.parent_lattices import LATTICES, parent_lattice
from hullscreen.workflows.primitive_crystals import primitive_crystal
from hullscreen.workflows.superlattices import reduced_cell, wrapped

# At one Å³ per atom, where bonds are about 1 Å long. The library gives coordinates to 4-5 digits
# of axes up to 10 Å long, so equal crystals agree within 1e-3; unequal ones that relax into one
# another are none of this module's business.
SAME_STRAIN = 1e-3
SAME_POSITION_ANGSTROM = 2e-3

Crystal: TypeAlias = tuple[FloatArray, FloatArray, IntArray]
"""Cell (3, 3) and Cartesian positions (n_atoms, 3) in Å, species (n_atoms,)."""

LIBRARY_FILES = ("prototypes/aflow_prototypes.json.gz", "aflow_prototypes.json.gz")


@dataclass(frozen=True, eq=False)
class AflowPrototype:
    """One entry of the library, at one Å³ per atom.

    Attributes
    ----------
    label
        AFLOW's label, such as ``AB_cF8_216_c_a``; followed by the Strukturbericht symbol or the
        mineral, ``AB_oP8_62_c_c.B27``, where entries with different parameters share one.
    cell
        Primitive, reduced lattice vectors as rows in Å, shape (3, 3).
    positions
        Cartesian positions in Å, shape (n_atoms, 3).
    species
        0 for A of the label, 1 for B, ...; shape (n_atoms,).
    """

    label: str
    cell: FloatArray
    positions: FloatArray
    species: IntArray

    @property
    def n_atoms(self) -> int:
        """Atoms in the primitive cell."""
        return len(self.species)

    @property
    def n_species(self) -> int:
        """Different species."""
        return int(self.species.max()) + 1


@dataclass(frozen=True, eq=False)
class Decorations:
    """What :func:`aflow_decorations` returns.

    Attributes
    ----------
    labels
        ``label-digits``, one digit for each of A, B, ...: the colour it has. Unique.
    structures
        At one Å³ per atom; species are colours.
    left_out
        Reason for each prototype or decoration that is not among them, by label.
    """

    labels: tuple[str, ...]
    structures: Structures
    left_out: Mapping[str, str]


@cache
def aflow_prototypes() -> tuple[AflowPrototype, ...]:
    """All prototypes of pymatgen's library, small cells first, then by label.

    Raises
    ------
    InputError
        The installed pymatgen has no such library.
    """
    entries = json.loads(gzip.decompress(_library_file().read_bytes()))
    labels = _unique_labels([entry["tags"] for entry in entries])
    prototypes = [
        _prototype(label, entry["snl"]) for label, entry in zip(labels, entries, strict=True)
    ]
    return tuple(sorted(prototypes, key=lambda one: (one.n_atoms, one.n_species, one.label)))


def aflow_decorations(
    n_colours: int, max_atoms: int = 20, derivatives: Mapping[str, int] | None = None
) -> Decorations:
    """Every distinct decoration with up to ``n_colours`` elements.

    Parameters
    ----------
    n_colours
        Elements at hand; a prototype with more species has no decoration.
    max_atoms
        Most atoms in a primitive cell.
    derivatives
        Parent lattice -> most atoms of its derivative structures that the pool holds anyway.

    Raises
    ------
    InputError
        ``n_colours`` is not positive, or pymatgen's library is missing.
    """
    if n_colours < 1:
        raise InputError(f"n_colours must be at least 1, got {n_colours}")
    covered = derivatives or {}
    parents = _parents() if covered else {}
    equal = _equal_decorations()
    labels: list[str] = []
    parts: list[Crystal] = []
    left_out: dict[str, str] = {}
    for prototype in aflow_prototypes():
        label = prototype.label
        if prototype.n_atoms > max_atoms:
            left_out[label] = f"{prototype.n_atoms} atoms per cell, more than {max_atoms}"
            continue
        if prototype.n_species > n_colours:
            left_out[label] = f"{prototype.n_species} species, more than {n_colours} elements"
            continue
        parent = parents.get(label)
        if parent is not None and prototype.n_atoms <= covered.get(parent, 0):
            left_out[label] = f"a derivative structure of {parent}"
            continue
        for colours in itertools.permutations(range(n_colours), prototype.n_species):
            name = _decoration_label(label, colours)
            first = min(
                _decoration_label(other, [colours[kind] for kind in kinds])
                for other, kinds in equal[label]
            )
            if first != name:
                left_out[name] = f"the same crystal as {first}"
                continue
            kinds = np.array(colours, dtype=np.int32)[prototype.species]
            labels.append(name)
            parts.append((prototype.cell, prototype.positions, kinds))
    return Decorations(tuple(labels), join(parts), left_out)


def _decoration_label(label: str, colours: Iterable[int]) -> str:
    return f"{label}-{''.join(map(str, colours))}"


@cache
def _equal_decorations() -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Crystals equal to each prototype's: (label, kinds) means that ``label`` is the same crystal.

    Its species A, B, ... are then the species ``kinds[0]``, ``kinds[1]``, ... of the prototype.
    Every prototype equals itself; an entry of the library that repeats another has two.
    """
    equal: dict[str, list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
    buckets: dict[tuple[int, ...], list[AflowPrototype]] = defaultdict(list)
    for prototype in aflow_prototypes():
        buckets[tuple(sorted(np.bincount(prototype.species)))].append(prototype)
    for bucket in buckets.values():
        for prototype, other in itertools.product(bucket, bucket):
            for kinds in itertools.permutations(range(prototype.n_species)):
                if _same_crystal(prototype, other, kinds):
                    equal[prototype.label].append((other.label, kinds))
    return equal


def _same_crystal(one: AflowPrototype, other: AflowPrototype, kinds: Sequence[int]) -> bool:
    """Whether ``other`` with its species renamed to ``kinds`` is the crystal ``one``."""
    renamed = np.array(kinds, dtype=np.int32)[other.species]
    if not np.array_equal(np.bincount(renamed), np.bincount(one.species)):
        return False
    return _matches((one.cell, one.positions, one.species), (other.cell, other.positions, renamed))


@cache
def _parents() -> dict[str, str]:
    """Parent lattice of each prototype whose sites, colours aside, are those of one."""
    found = {}
    parents = [(name, _parent_crystal(name)) for name in LATTICES]
    for prototype in aflow_prototypes():
        sites = _primitive(prototype.cell, prototype.positions, np.zeros_like(prototype.species))
        for name, crystal in parents:
            if len(sites[2]) == len(crystal[2]) and _matches(sites, crystal):
                found[prototype.label] = name
    return found


def _parent_crystal(name: str) -> Crystal:
    parent = parent_lattice(name)
    kinds = np.zeros(parent.n_sites, dtype=np.int32)
    return _primitive(parent.cell, parent.sites @ parent.cell, kinds)


def _primitive(cell: FloatArray, positions: FloatArray, species: IntArray) -> Crystal:
    """Primitive, reduced cell at one Å³ per atom, Cartesian positions inside it, and species."""
    scale = (len(species) / abs(np.linalg.det(cell))) ** (1.0 / 3.0)
    primitive, fractions, kinds = primitive_crystal(
        np.ascontiguousarray(cell) * scale,
        np.ascontiguousarray(positions) * scale,
        species,
        SAME_POSITION_ANGSTROM,
    )
    basis = reduced_cell(primitive)
    return basis, wrapped(fractions @ primitive, basis), kinds


def _matches(one: Crystal, other: Crystal) -> bool:
    # Lengths of reduced lattice vectors belong to the lattice: a cheap first comparison.
    lengths = np.linalg.norm(one[0], axis=1)
    difference = np.abs(np.linalg.norm(other[0], axis=1) - lengths).max()
    if difference > 2.0 * SAME_STRAIN * lengths.max():
        return False
    fractions, other_fractions = (
        positions @ np.linalg.inv(cell) for cell, positions, _ in (one, other)
    )
    return bool(
        crystals_match(
            one[0],
            fractions,
            one[2],
            other[0],
            other_fractions,
            other[2],
            SAME_STRAIN,
            SAME_POSITION_ANGSTROM,
        )
    )


def _prototype(label: str, snl: Mapping[str, Any]) -> AflowPrototype:
    symbols = [site["species"][0]["element"] for site in snl["sites"]]
    # AFLOW's letters follow the alphabet of the compound's own symbols.
    letters = sorted(set(symbols))
    species = np.array([letters.index(symbol) for symbol in symbols], dtype=np.int32)
    cell = np.array(snl["lattice"]["matrix"], dtype=np.float64)
    coordinates = np.array([site["abc"] for site in snl["sites"]], dtype=np.float64)
    return AflowPrototype(label, *_primitive(cell, coordinates @ cell, species))


def _unique_labels(tags: Sequence[Mapping[str, str]]) -> list[str]:
    """AFLOW's labels, with the Strukturbericht symbol or mineral where one occurs again."""
    shared = Counter(tag["aflow"] for tag in tags)
    labels: list[str] = []
    for tag in tags:
        label = tag["aflow"]
        if shared[label] > 1:
            symbol = tag["strukturbericht"]
            label += "." + (tag["mineral"].replace(" ", "_") if symbol == "None" else symbol)
        labels.append(label)
    again = Counter(labels)
    if max(again.values()) > 1:
        label = again.most_common(1)[0][0]
        raise InputError(f"the installed pymatgen holds two AFLOW prototypes called {label}")
    return labels


def _library_file() -> Path:
    spec = importlib.util.find_spec("pymatgen.analysis")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder, name in itertools.product(folders or (), LIBRARY_FILES):
        file = Path(folder) / name
        if file.is_file():
            return file
    raise InputError(
        "the installed pymatgen ships no AFLOW prototypes (aflow_prototypes.json.gz); install a "
        "pymatgen from 2025.1.9 on, or leave AFLOW prototypes out"
    )
