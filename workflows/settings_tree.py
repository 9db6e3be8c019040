"""Every setting of a campaign: one frozen tree, a dataclass per table of ``hullscreen.toml``.

A field's description holds its unit and meaning; the commented file that ``hullscreen init``
writes and the table in the README come from it.
"""

import dataclasses
import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictStr, field_validator, model_validator
from pydantic.dataclasses import dataclass

from hullscreen.workflows.elements import check_elements

MAX_ATOMS = {2: 8, 3: 6, 4: 4}
"""Atoms per cell of the derivative structures, by the number of elements."""

MOST_AT_ONCE = 20
"""Structures of one DFT job or process, at most, where the settings do not say."""

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

KNOWN_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)


def _setting(default: Any, description: str, **limits: Any) -> Any:
    """A documented field; numbers, flags and strings are taken as they are, never converted."""
    if isinstance(default, bool | int | float):
        limits["strict"] = True
    if isinstance(default, dict):
        return Field(default_factory=dict, description=description, **limits)
    return Field(default=default, description=description, **limits)


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Campaign:
    """What is searched."""

    name: str = _setting(
        "campaign",
        "Name of the campaign in the database: letters, digits, '-', '_' and '.'.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
    )
    elements: tuple[StrictStr, ...] = Field(
        description="Two to four element symbols; the hull spans all their compositions.",
    )
    seed: int = _setting(
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

    lattices: Annotated[tuple[Lattice, ...], Field(min_length=1)] = _setting(
        ("fcc", "bcc", "hcp"),
        "Parent lattices that are decorated: fcc, bcc, hcp, dhcp, 9R or sc.",
    )
    max_atoms: int = _setting(
        MAX_ATOMS[2],
        "Atoms per cell, at most, of the decorated lattices; a file without this key takes 8 for "
        "two elements, 6 for three and 4 for four.",
        ge=1,
        le=24,
    )
    aflow: bool = _setting(
        default=True, description="Whether the AFLOW prototypes are decorated as well."
    )
    aflow_max_atoms: int = _setting(
        12, "Atoms per cell, at most, of the AFLOW prototypes.", ge=1, le=200
    )

    @field_validator("lattices")
    @classmethod
    def _different_lattices(cls, lattices: tuple[Lattice, ...]) -> tuple[Lattice, ...]:
        if len(set(lattices)) < len(lattices):
            raise ValueError("a lattice is named twice; name each lattice once")
        return lattices


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class QuantumEspresso:
    """Quantum ESPRESSO, used when ``engine = "quantum_espresso"``. Empty: the preset's value."""

    preset: str = _setting(
        "debian-lda",
        "Set of pseudopotentials and cutoffs: 'debian-lda' (Al Au Cu Mg Ni Ti), 'debian-pbe' "
        "(Cr Cu Ni), 'pseudo-dojo-pbe' (the folder is yours) or 'own-pseudopotentials' (cutoffs "
        "from the headers of your files).",
        min_length=1,
    )
    command: str = _setting(
        "pw.x", "Command that runs pw.x, such as 'mpirun -np 4 pw.x'.", min_length=1
    )
    pseudopotentials: str = _setting(
        "", "Folder of the UPF files, relative to this directory; empty: the preset's."
    )
    files: dict[str, str] = _setting({}, "UPF file by element, beside those of the preset.")
    functional: Literal["", "LDA", "PBE", "PBEsol"] = _setting(
        "", "Functional: LDA, PBE or PBEsol; empty: the preset's."
    )
    cutoff_ry: float = _setting(
        0.0, "Cutoff of the wave functions in Ry; 0: the preset's.", ge=0, le=1000
    )
    density_cutoff_ry: float = _setting(
        0.0, "Cutoff of the charge density in Ry; 0: the preset's.", ge=0, le=10000
    )
    smearing_ry: float = _setting(
        0.0, "Width of the Marzari-Vanderbilt smearing in Ry; 0: the preset's.", ge=0, le=1
    )
    kpoint_spacing: float = _setting(
        0.0,
        "Largest distance of k points in 1/Å, without the factor 2π; 0: the preset's.",
        ge=0,
        le=1,
    )
    spin: bool = _setting(
        default=True, description="Whether structures with magnetic elements are spin polarised."
    )
    spin_from_fraction: float = _setting(
        0.0,
        "Share of magnetic elements from which a structure is spin polarised; 0: as soon as it "
        "holds one.",
        ge=0,
        le=1,
    )
    initial_moments: dict[str, float] = _setting(
        {}, "Starting moment by element in Bohr magnetons, beside Cr, Mn, Fe, Co and Ni."
    )
    scf_threshold_ry_per_atom: float = _setting(
        1e-9, "Convergence of the self-consistent energy in Ry per atom.", gt=0, lt=1
    )
    max_scf_steps: int = _setting(100, "Iterations after which a calculation has failed.", ge=1)
    timeout_s: float = _setting(0.0, "Wall time in s after which pw.x is stopped; 0: never.", ge=0)
    extra_input: dict[str, dict[str, Any]] = _setting(
        {}, "Namelist entries on top, such as {electrons = {mixing_beta = 0.3}}."
    )

    @model_validator(mode="after")
    def _cutoffs_fit(self) -> "QuantumEspresso":
        if 0 < self.density_cutoff_ry < 4 * self.cutoff_ry:
            raise ValueError(
                f"density_cutoff_ry is {self.density_cutoff_ry:g} and cutoff_ry "
                f"{self.cutoff_ry:g}; expected the density's to be at least four times as large"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Vasp:
    """VASP under custodian, used when ``engine = "vasp"``. Empty: the preset's value."""

    preset: str = _setting(
        "vasp-pbe-metals",
        "INCAR settings for metals: 'vasp-pbe-metals', 'vasp-pbesol-metals' or 'vasp-lda-metals'.",
        min_length=1,
    )
    command: str = _setting(
        "vasp_std", "Command that runs VASP, such as 'srun -n 32 vasp_std'.", min_length=1
    )
    potcar_directory: str = _setting(
        "",
        "Folder of your POTCARs, in VASP's or pymatgen's arrangement, relative to this directory; "
        "empty: pymatgen's own setting PMG_VASP_PSP_DIR.",
    )
    potcar_functional: str = _setting(
        "", "Which POTCARs: PBE_54, PBE_64, LDA_54 and so on; empty: the preset's."
    )
    potcars: dict[str, str] = _setting(
        {}, "POTCAR by element where it is not the preset's, such as {Ti = 'Ti_sv'}."
    )
    potcar_spec: bool = _setting(
        default=False,
        description="Whether the names of POTCARs are written instead of their content: to prepare "
        "inputs where there are none.",
    )
    input_set: str = _setting("", "pymatgen's input set to begin with; empty: the preset's.")
    cutoff_ev: float = _setting(0.0, "ENCUT in eV; 0: the preset's.", ge=0, le=5000)
    smearing_order: int = _setting(
        1, "ISMEAR: order of the Methfessel-Paxton smearing.", ge=1, le=4
    )
    smearing_ev: float = _setting(0.0, "SIGMA in eV; 0: the preset's.", ge=0, le=2)
    kpoint_spacing: float = _setting(
        0.0,
        "Largest distance of k points in 1/Å, without the factor 2π; 0: the preset's.",
        ge=0,
        le=1,
    )
    spin: bool = _setting(
        default=True, description="Whether structures with magnetic elements are spin polarised."
    )
    initial_moments: dict[str, float] = _setting(
        {}, "Starting moment by element in Bohr magnetons, beside Cr, Mn, Fe, Co and Ni."
    )
    scf_threshold_ev: float = _setting(
        1e-6, "EDIFF: convergence of the self-consistent energy in eV per cell.", gt=0, lt=1
    )
    max_scf_steps: int = _setting(
        100, "NELM: electronic steps after which a calculation is not converged.", ge=1
    )
    timeout_s: float = _setting(
        0.0,
        "Wall time in s of one run; a relaxation is asked to stop before it and goes on; 0: no "
        "limit.",
        ge=0,
    )
    frozen_after_s: float = _setting(
        21600.0, "Time in s without output after which VASP has hung.", gt=0
    )
    monitor_every_s: float = _setting(
        30.0, "Time in s between custodian's looks at a calculation that runs.", gt=0
    )
    extra_incar: dict[str, Any] = _setting({}, "INCAR tags on top, such as {NCORE = 4, KPAR = 2}.")


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class DFT:
    """The reference method: every energy on the final hull comes from it."""

    engine: Literal["ase", "quantum_espresso", "vasp"] = _setting(
        "ase", "Program: 'ase' (any ASE calculator), 'quantum_espresso' or 'vasp'."
    )
    calculator: str = _setting(
        "ase.calculators.emt:EMT",
        "ASE calculator as 'module:Class'; EMT is quick, knows Al Ni Cu Pd Ag Pt Au and needs "
        "nothing installed.",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
    )
    arguments: dict[str, Any] = _setting({}, "Keyword arguments of the ASE calculator.")
    force_tolerance: float = _setting(
        0.01, "Largest force in eV/Å at which a DFT relaxation ends.", gt=0, le=1
    )
    stress_tolerance_gpa: float = _setting(
        0.1, "Largest stress in GPa at which a DFT relaxation ends.", gt=0, le=10
    )
    max_steps: int = _setting(200, "Steps of a DFT relaxation, at most.", ge=1)
    structures_per_job: int = _setting(
        0,
        "Structures of up to 4 atoms that one DFT job computes one after another; larger ones and "
        "relaxations count as several, but not with an ASE calculator; 0: 20 with such a one, else "
        "so few that 24 workers share a round.",
        ge=0,
    )
    single_point_walltime_s: float = _setting(
        0.0,
        "Wall time in s that a single point may take; a job asks FireWorks' queue adapter for as "
        "many times that as it has structures; 0: for what my_qadapter.yaml says.",
        ge=0,
    )
    relaxation_walltime_s: float = _setting(
        0.0, "Wall time in s that a DFT relaxation may take, in the same way.", ge=0
    )
    quantum_espresso: QuantumEspresso = Field(default_factory=QuantumEspresso)
    vasp: Vasp = Field(default_factory=Vasp)

    @property
    def structures_at_once(self) -> int:
        """Structures of one job or process, at most."""
        return self.structures_per_job or MOST_AT_ONCE

    def engine_table(self) -> dict[str, Any]:
        """What ``hullscreen.dft_adapters.engine.load_engine`` takes."""
        own: dict[str, Any]
        if self.engine == "ase":
            own = {"calculator": self.calculator, "arguments": dict(self.arguments)}
        else:
            given = dataclasses.asdict(getattr(self, self.engine))
            # False is a choice; an empty string, table or zero stands for the preset's value.
            own = {key: value for key, value in given.items() if value or value is False}
        return {"engine": self.engine, **own}


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Potential:
    """The moment tensor potential of both screening stages."""

    cutoff_angstrom: float = _setting(5.5, "Reach of the interactions in Å.", gt=0, le=15)
    min_distance_angstrom: float = _setting(
        0.0,
        "Distance in Å below which the radial functions are not trusted; 0 takes it from the "
        "elements.",
        ge=0,
    )
    radial_basis_size: int = _setting(
        6, "Chebyshev polynomials of each radial function.", ge=2, le=32
    )
    level_first: int = _setting(
        8,
        "Level of the small, fast potential of the first stage: even.",
        ge=2,
        le=28,
        multiple_of=2,
    )
    level_second: int = _setting(
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

    select_grade: float = _setting(
        2.0, "Extrapolation grade from which a structure is a candidate for training.", gt=1
    )
    break_grade: float = _setting(
        10.0, "Extrapolation grade at which a relaxation stops and waits for more training.", gt=1
    )
    first_wave: int = _setting(100, "Structures relaxed with the first potential.", ge=1)
    wave_growth: float = _setting(
        4.0, "Factor by which each wave is larger than the one before.", ge=1.1
    )
    max_selected_per_wave: int = _setting(
        40, "DFT calculations for training after one wave, at most.", ge=1
    )
    borrow: bool = _setting(
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

    sigma_multiple: float = _setting(
        4.0,
        "Structures within this many σ of the hull are kept; σ is the potential's measured energy "
        "error.",
        gt=0,
    )
    validation_structures: int = _setting(
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

    force_tolerance: float = _setting(0.01, "Largest force in eV/Å at the end.", gt=0, le=1)
    stress_tolerance_gpa: float = _setting(0.1, "Largest stress in GPa at the end.", gt=0, le=10)
    max_steps: int = _setting(300, "Steps, at most.", ge=1)
    batch_size: int = _setting(
        1000, "Structures in one Firework, more where a round has many.", ge=1, le=5000
    )


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Database:
    """The MongoDB server; without an address hullscreen starts one in this directory."""

    uri: str = _setting(
        "",
        "Address, such as 'mongodb://user@host:27017/?tls=true'; empty: a server of its own.",
        pattern=r"^($|mongodb(\+srv)?://.+)",
    )
    uri_file: str = _setting(
        "",
        "File whose first line is the address, for addresses with a password; relative to this "
        "directory, and readable by its owner alone.",
    )
    name: str = _setting(
        "hullscreen",
        "Name of the database on the server; campaigns in one database share DFT results.",
        pattern=r"^[A-Za-z0-9_-]{1,63}$",
    )

    @model_validator(mode="after")
    def _one_address(self) -> "Database":
        if self.uri and self.uri_file:
            raise ValueError("uri and uri_file are both given; expected one of them")
        return self


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Launch:
    """How the work is spread over this machine."""

    workers: int = _setting(0, "Processes that `hullscreen run` starts; 0: one per core.", ge=0)
    dft_workers: int = _setting(
        0,
        "Further processes, for DFT alone, which the others then leave to them; 0: as many as "
        "there are cores for, if a DFT calculation takes several, else all do everything.",
        ge=0,
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
