"""What a DFT calculation costs, from those that are stored: a line through their logarithms.

Processor time is proportional to a power of the *workload*: points of the irreducible grid of k,
times valence electrons, times the volume (which counts the plane waves), and twice that with two
spins. Grids become coarser as cells grow, and symmetry, which the strained first training
structures lack, saves up to 48 times. Engines without plane waves are asked for atoms only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import spglib
from ase.data import atomic_numbers
from pymatgen.core import Element

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.dft_adapters.kpoints import kpoint_grid
from hullscreen.dft_adapters.preset_files import INITIAL_MOMENTS, is_polarised
from hullscreen.potentials.structures import FloatArray, IntArray, Structures, join
from hullscreen.workflows.packing import SINGLE_POINTS_OF_A_RELAXATION
from hullscreen.workflows.symmetry import ask_spglib

# Where the settings leave it to the preset: that of all presets.
USUAL_SPACING = 0.03
SYMPREC_ANGSTROM = 1e-5
# A slope is fitted to as many calculations over as wide a range of workloads; otherwise the cost is
# taken to be proportional.
ENOUGH_FOR_A_SLOPE = 4
WIDE_ENOUGH = math.log(6.0)
SLOPES = (0.4, 1.6)
# Costs of fewer calculations, all of them strained alike, say little about others.
FEW, FACTOR_OF_FEW, SMALLEST_FACTOR = 10, 2.0, 1.15
# Standard deviations of a normal distribution in the median absolute deviation.
MAD_TO_SIGMA = 1.4826
# A relaxation may take fewer evaluations than is usual, and each begins with the last one's wave
# functions; or many more.
RELAXATION_RANGE = (0.35, 1.75)


@dataclass(frozen=True)
class Workloads:
    """How to weigh structures of some elements.

    Attributes
    ----------
    elements
        Symbols that species are indices into.
    kpoint_spacing
        Largest distance of k points in Å⁻¹, without 2π; 0 for engines without plane waves.
    magnetic
        Elements that begin with a moment; none without spin.
    spin_from_fraction
        Share of them from which a structure is spin polarised; 0: any.
    """

    elements: tuple[str, ...]
    kpoint_spacing: float
    magnetic: frozenset[str]
    spin_from_fraction: float = 0.0

    @classmethod
    def of_engine(cls, table: Mapping[str, Any], elements: Sequence[str]) -> Workloads:
        """For the engine that a settings table describes."""
        spacing = 0.0 if table["engine"] == "ase" else table.get("kpoint_spacing", USUAL_SPACING)
        moments = {**INITIAL_MOMENTS, **table.get("initial_moments", {})}
        magnetic = {e for e, moment in moments.items() if moment} if table.get("spin", True) else ()
        fraction = float(table.get("spin_from_fraction", 0.0))
        return cls(tuple(elements), float(spacing), frozenset(magnetic), fraction)

    def of(self, structures: Structures) -> FloatArray:
        """Workload of each structure, shape (n_structures,)."""
        if not self.kpoint_spacing:
            return structures.n_atoms.astype(np.float64)
        parts = [structures.one(i) for i in range(len(structures))]
        return np.array([self._of_one(*part) for part in parts], dtype=np.float64)

    def _of_one(self, cell: FloatArray, positions: FloatArray, species: IntArray) -> float:
        symbols = [self.elements[k] for k in species]
        electrons = sum(valence_electrons(symbol) for symbol in symbols)
        spins = 2 if is_polarised(symbols, self.magnetic, self.spin_from_fraction) else 1
        points = irreducible_points(cell, positions, species, self.kpoint_spacing)
        return spins * points * electrons * abs(float(np.linalg.det(cell)))


@cache
def valence_electrons(symbol: str) -> int:
    """Electrons outside the closed shells: the group, less the ten of a full d shell."""
    group = int(Element(symbol).group)
    return group if group <= 12 else group - 10


def irreducible_points(
    cell: FloatArray, positions: FloatArray, species: IntArray, spacing: float
) -> int:
    """Points of k that symmetry and time reversal leave of a Γ-centred grid.

    Parameters
    ----------
    cell, positions, species
        Å, Å; shapes (3, 3), (n_atoms, 3), (n_atoms,).
    spacing
        Å⁻¹, without 2π.
    """
    grid = kpoint_grid(cell, spacing)
    crystal = (cell, positions @ np.linalg.inv(cell), species + 1)
    ask = spglib.get_ir_reciprocal_mesh
    found = ask_spglib(ask, grid, crystal, symprec=SYMPREC_ANGSTROM)
    if found is None:
        return math.prod(grid) // 2 + 1
    return len(np.unique(found[0]))


@dataclass(frozen=True)
class CostModel:
    """Processor time of single points and relaxations against the workload.

    Attributes
    ----------
    slope, intercept
        Of log(CPU s) of a single point against log(workload).
    spread
        Robust standard deviation of log(CPU s) about that line.
    n_measured
        Single points behind it.
    relaxation, n_relaxations
        Single points that a relaxation costs, and relaxations from which that is known.
    """

    slope: float
    intercept: float
    spread: float
    n_measured: int
    relaxation: float = SINGLE_POINTS_OF_A_RELAXATION
    n_relaxations: int = 0

    @property
    def factor(self) -> float:
        """By how much a sum of costs may be wrong either way."""
        found = max(math.exp(self.spread), SMALLEST_FACTOR)
        return max(found, FACTOR_OF_FEW) if self.n_measured < FEW else found

    @property
    def relaxation_range(self) -> tuple[float, float]:
        """Single points that a relaxation costs, from and to."""
        low, high = RELAXATION_RANGE
        if self.n_relaxations:
            low, high = 1.0 / SMALLEST_FACTOR, SMALLEST_FACTOR
        return low * self.relaxation, high * self.relaxation

    def seconds(self, workloads: FloatArray) -> FloatArray:
        """Mean CPU time of single points in s, shape (n_structures,)."""
        # The mean of a log-normal distribution lies above its median.
        mean = self.intercept + 0.5 * min(self.spread, 1.0) ** 2
        seconds: FloatArray = np.exp(mean + self.slope * np.log(workloads))
        return seconds


def fit_costs(workloads: FloatArray, cpu_seconds: FloatArray) -> CostModel | None:
    """The line that most of the calculations lie near; None if there are none.

    Parameters
    ----------
    workloads, cpu_seconds
        Of single points, shape (n_calculations,) each, all positive.

    Notes
    -----
    The slope is the median of those of all pairs (P. Sen, J. Am. Stat. Assoc. 63, 1379 (1968)), so
    that a few calculations that were restarted, or met a busy machine, do not matter.
    """
    if not len(workloads):
        return None
    x, y = np.log(workloads), np.log(cpu_seconds)
    slope = 1.0
    if len(x) >= ENOUGH_FOR_A_SLOPE and np.ptp(x) > WIDE_ENOUGH:
        first, second = np.triu_indices(len(x), 1)
        apart = np.abs(x[first] - x[second]) > 1e-6
        rise, run = y[first] - y[second], x[first] - x[second]
        slope = float(np.clip(np.median(rise[apart] / run[apart]), *SLOPES))
    intercept = float(np.median(y - slope * x))
    spread = float(MAD_TO_SIGMA * np.median(np.abs(y - slope * x - intercept)))
    return CostModel(slope, intercept, spread, len(x))


def model_of(
    single_points: Sequence[DFTDocument], relaxations: Sequence[DFTDocument], work: Workloads
) -> CostModel | None:
    """Cost model of stored calculations; None if there is no single point among them."""
    singles = [d for d in single_points if d.cpu_seconds > 0]
    fitted = fit_costs(_workloads(singles, work), np.array([d.cpu_seconds for d in singles]))
    if fitted is None or not relaxations:
        return fitted
    ratios = np.array([d.cpu_seconds for d in relaxations])
    ratios /= fitted.seconds(_workloads(relaxations, work))
    return CostModel(
        fitted.slope, fitted.intercept, fitted.spread, fitted.n_measured,
        float(np.median(ratios)), len(relaxations),
    )  # fmt: skip


def _workloads(documents: Sequence[DFTDocument], work: Workloads) -> FloatArray:
    if not documents:
        return np.empty(0)
    place = {atomic_numbers[symbol]: k for k, symbol in enumerate(work.elements)}
    return work.of(
        join(
            (d.geometry.cell, d.geometry.positions, np.array([place[z] for z in d.numbers]))
            for d in documents
        )
    )
