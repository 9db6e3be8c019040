"""Every setting of a campaign: one frozen tree, a dataclass per table of ``hullscreen.toml``.

A field's description holds its unit and meaning; the commented file that ``hullscreen init``
writes and the table in the README come from it.
"""

import dataclasses
import json
from typing import Annotated, Any, Literal

from pydantic import Field, StrictStr, field_validator, model_validator
from pydantic.dataclasses import dataclass

from hullscreen.workflows.dft_settings import DFT, MOST_AT_ONCE, QuantumEspresso, Vasp
from hullscreen.workflows.elements import check_elements
from hullscreen.workflows.launch_settings import Database, Launch
from hullscreen.workflows.setting_fields import KNOWN_KEYS, setting

__all__ = [
    "DFT",
    "FREE_TO_CHANGE",
    "MAX_ATOMS",
    "MOST_AT_ONCE",
    "Campaign",
    "Database",
    "Launch",
    "Learning",
    "Potential",
    "Prototypes",
    "QuantumEspresso",
    "Relaxation",
    "Screening",
    "Settings",
    "Vasp",
]

MAX_ATOMS = {2: 8, 3: 6, 4: 4}
"""Atoms per cell of the derivative structures, by the number of elements."""

Lattice = Literal["fcc", "bcc", "hcp", "dhcp", "9R", "sc"]

FREE_TO_CHANGE = {
    # How work is cut and how long is tried, not what comes out.
    "dft.max_steps",
    "dft.structures_per_job",
    "dft.single_point_walltime_s",
    "dft.relaxation_walltime_s",
    "relaxation.batch_size",
    # The engine's fingerprint tells whether energies change: a command or a path does not.
    "dft.arguments",
    "dft.calculator",
    "dft.engine",
    "dft.quantum_espresso",
    "dft.vasp",
}
"""Settings that may change during a campaign."""


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Campaign:
    """What is searched."""

    name: str = setting(
        "campaign",
        "Name of the campaign in the database: letters, digits, '-', '_' and '.'.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
    )
    elements: tuple[StrictStr, ...] = Field(
        description="Two to four element symbols; the hull spans all their compositions.",
    )
    seed: int = setting(
        0,
        "Seed of the random numbers that choose the first training structures and samples.",
        ge=0,
        lt=2**32,
    )

    @field_validator("elements")
    @classmethod
    def _known_elements(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        return check_elements(elements)


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Prototypes:
    """Which crystal structures are tried."""

    lattices: Annotated[tuple[Lattice, ...], Field(min_length=1)] = setting(
        ("fcc", "bcc", "hcp"),
        "Parent lattices that are decorated: fcc, bcc, hcp, dhcp, 9R or sc.",
    )
    max_atoms: int = setting(
        MAX_ATOMS[2],
        "Atoms per cell, at most, of the decorated lattices; a file without this key takes 8 for "
        "two elements, 6 for three and 4 for four.",
        ge=1,
        le=24,
    )
    aflow: bool = setting(
        default=True, description="Whether the AFLOW prototypes are decorated as well."
    )
    aflow_max_atoms: int = setting(
        12, "Atoms per cell, at most, of the AFLOW prototypes.", ge=1, le=200
    )

    @field_validator("lattices")
    @classmethod
    def _different_lattices(cls, lattices: tuple[Lattice, ...]) -> tuple[Lattice, ...]:
        if len(set(lattices)) < len(lattices):
            raise ValueError("a lattice is named twice; name each lattice once")
        return lattices


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Potential:
    """The moment tensor potential of both screening stages."""

    cutoff_angstrom: float = setting(5.5, "Reach of the interactions in Å.", gt=0, le=15)
    min_distance_angstrom: float = setting(
        0.0,
        "Distance in Å below which the radial functions are not trusted; 0 takes it from the "
        "elements.",
        ge=0,
    )
    radial_basis_size: int = setting(
        6, "Chebyshev polynomials of each radial function.", ge=2, le=32
    )
    level_first: int = setting(
        8,
        "Level of the small, fast potential of the first stage: even.",
        ge=2,
        le=28,
        multiple_of=2,
    )
    level_second: int = setting(
        12, "Level of the larger potential of the second stage: even.", ge=2, le=28, multiple_of=2
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Potential":
        if self.level_second < self.level_first:
            raise ValueError(
                f"level_second is {self.level_second} and level_first {self.level_first}; "
                "expected level_second to be at least level_first"
            )
        if self.cutoff_angstrom <= self.min_distance_angstrom:
            raise ValueError(
                f"cutoff_angstrom is {self.cutoff_angstrom:g} and min_distance_angstrom "
                f"{self.min_distance_angstrom:g}; expected the cutoff to be larger"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Learning:
    """When a relaxation asks for DFT, and how many structures a wave holds."""

    select_grade: float = setting(
        2.0, "Extrapolation grade from which a structure is a candidate for training.", gt=1
    )
    break_grade: float = setting(
        10.0, "Extrapolation grade at which a relaxation stops and waits for more training.", gt=1
    )
    first_wave: int = setting(100, "Structures relaxed with the first potential.", ge=1)
    wave_growth: float = setting(
        4.0, "Factor by which each wave is larger than the one before.", ge=1.1
    )
    max_selected_per_wave: int = setting(
        40, "DFT calculations for training after one wave, at most.", ge=1
    )
    borrow: bool = setting(
        default=True,
        description="Whether labels that campaigns of fewer of these elements have left in the "
        "database are learnt from the start.",
    )

    @model_validator(mode="after")
    def _grades_in_order(self) -> "Learning":
        if self.break_grade <= self.select_grade:
            raise ValueError(
                f"break_grade is {self.break_grade:g} and select_grade {self.select_grade:g}; "
                "expected break_grade to be larger"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Screening:
    """Which structures a stage passes on."""

    sigma_multiple: float = setting(
        4.0,
        "Structures within this many σ of the hull are kept; σ is the potential's measured energy "
        "error.",
        gt=0,
    )
    validation_structures: int = setting(
        0,
        "Relaxed structures outside the training set from which σ is measured; 0: the square root "
        "of how many there are, at least 40.",
        ge=0,
    )

    @field_validator("validation_structures")
    @classmethod
    def _enough_for_a_deviation(cls, number: int) -> int:
        if number == 1:
            raise ValueError("σ cannot be measured from one structure; give 0, or 2 or more")
        return number


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Relaxation:
    """Relaxations with the potential, of cell and positions."""

    force_tolerance: float = setting(0.01, "Largest force in eV/Å at the end.", gt=0, le=1)
    stress_tolerance_gpa: float = setting(0.1, "Largest stress in GPa at the end.", gt=0, le=10)
    max_steps: int = setting(300, "Steps, at most.", ge=1)
    batch_size: int = setting(
        1000, "Structures in one Firework, more where a round has many.", ge=1, le=5000
    )


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Settings:
    """All tables of ``hullscreen.toml``."""

    campaign: Campaign
    prototypes: Prototypes = Field(default_factory=Prototypes)
    dft: DFT = Field(default_factory=DFT)
    potential: Potential = Field(default_factory=Potential)
    learning: Learning = Field(default_factory=Learning)
    screening: Screening = Field(default_factory=Screening)
    relaxation: Relaxation = Field(default_factory=Relaxation)
    database: Database = Field(default_factory=Database)
    launch: Launch = Field(default_factory=Launch)

    def tables(self) -> dict[str, dict[str, Any]]:
        """Plain nested dictionaries and lists, as TOML would give them."""
        plain: dict[str, dict[str, Any]] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def stored_tables(self) -> dict[str, dict[str, Any]]:
        """The tables that a campaign keeps; where the database is and who works may change."""
        return {k: v for k, v in self.tables().items() if k not in ("database", "launch")}

    def deciding(self) -> dict[str, Any]:
        """Every key that decides about results, as ``table.key``."""
        return {
            f"{table}.{key}": value
            for table, keys in self.stored_tables().items()
            for key, value in keys.items()
            if f"{table}.{key}" not in FREE_TO_CHANGE
        }
