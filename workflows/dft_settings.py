"""The table ``[dft]`` of ``hullscreen.toml``, and those of its engines."""

import dataclasses
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from hullscreen.workflows.setting_fields import KNOWN_KEYS, setting

MOST_AT_ONCE = 20
"""Structures of one DFT job or process, at most, where the settings do not say."""


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class QuantumEspresso:
    """Quantum ESPRESSO, used when ``engine = "quantum_espresso"``. Empty: the preset's value."""

    preset: str = setting(
        "debian-lda",
        "Set of pseudopotentials and cutoffs: 'debian-lda' (Al Au Cu Mg Ni Ti), 'debian-pbe' "
        "(Cr Cu Ni), 'pseudo-dojo-pbe' (the folder is yours) or 'own-pseudopotentials' (cutoffs "
        "from the headers of your files).",
        min_length=1,
    )
    command: str = setting(
        "pw.x", "Command that runs pw.x, such as 'mpirun -np 4 pw.x'.", min_length=1
    )
    pseudopotentials: str = setting(
        "", "Folder of the UPF files, relative to this directory; empty: the preset's."
    )
    files: dict[str, str] = setting({}, "UPF file by element, beside those of the preset.")
    functional: Literal["", "LDA", "PBE", "PBEsol"] = setting(
        "", "Functional: LDA, PBE or PBEsol; empty: the preset's."
    )
    cutoff_ry: float = setting(
        0.0, "Cutoff of the wave functions in Ry; 0: the preset's.", ge=0, le=1000
    )
    density_cutoff_ry: float = setting(
        0.0, "Cutoff of the charge density in Ry; 0: the preset's.", ge=0, le=10000
    )
    smearing_ry: float = setting(
        0.0, "Width of the Marzari-Vanderbilt smearing in Ry; 0: the preset's.", ge=0, le=1
    )
    kpoint_spacing: float = setting(
        0.0,
        "Largest distance of k points in 1/Å, without the factor 2π; 0: the preset's.",
        ge=0,
        le=1,
    )
    spin: bool = setting(
        default=True, description="Whether structures with magnetic elements are spin polarised."
    )
    spin_from_fraction: float = setting(
        0.0,
        "Share of magnetic elements from which a structure is spin polarised; 0: as soon as it "
        "holds one.",
        ge=0,
        le=1,
    )
    initial_moments: dict[str, float] = setting(
        {}, "Starting moment by element in Bohr magnetons, beside Cr, Mn, Fe, Co and Ni."
    )
    scf_threshold_ry_per_atom: float = setting(
        1e-9, "Convergence of the self-consistent energy in Ry per atom.", gt=0, lt=1
    )
    max_scf_steps: int = setting(100, "Iterations after which a calculation has failed.", ge=1)
    timeout_s: float = setting(0.0, "Wall time in s after which pw.x is stopped; 0: never.", ge=0)
    extra_input: dict[str, dict[str, Any]] = setting(
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

    preset: str = setting(
        "vasp-pbe-metals",
        "INCAR settings for metals: 'vasp-pbe-metals', 'vasp-pbesol-metals' or 'vasp-lda-metals'.",
        min_length=1,
    )
    command: str = setting(
        "vasp_std", "Command that runs VASP, such as 'srun -n 32 vasp_std'.", min_length=1
    )
    potcar_directory: str = setting(
        "",
        "Folder of your POTCARs, in VASP's or pymatgen's arrangement, relative to this directory; "
        "empty: pymatgen's own setting PMG_VASP_PSP_DIR.",
    )
    potcar_functional: str = setting(
        "", "Which POTCARs: PBE_54, PBE_64, LDA_54 and so on; empty: the preset's."
    )
    potcars: dict[str, str] = setting(
        {}, "POTCAR by element where it is not the preset's, such as {Ti = 'Ti_sv'}."
    )
    potcar_spec: bool = setting(
        default=False,
        description="Whether the names of POTCARs are written instead of their content: to prepare "
        "inputs where there are none.",
    )
    input_set: str = setting("", "pymatgen's input set to begin with; empty: the preset's.")
    cutoff_ev: float = setting(0.0, "ENCUT in eV; 0: the preset's.", ge=0, le=5000)
    smearing_order: int = setting(1, "ISMEAR: order of the Methfessel-Paxton smearing.", ge=1, le=4)
    smearing_ev: float = setting(0.0, "SIGMA in eV; 0: the preset's.", ge=0, le=2)
    kpoint_spacing: float = setting(
        0.0,
        "Largest distance of k points in 1/Å, without the factor 2π; 0: the preset's.",
        ge=0,
        le=1,
    )
    spin: bool = setting(
        default=True, description="Whether structures with magnetic elements are spin polarised."
    )
    initial_moments: dict[str, float] = setting(
        {}, "Starting moment by element in Bohr magnetons, beside Cr, Mn, Fe, Co and Ni."
    )
    scf_threshold_ev: float = setting(
        1e-6, "EDIFF: convergence of the self-consistent energy in eV per cell.", gt=0, lt=1
    )
    max_scf_steps: int = setting(
        100, "NELM: electronic steps after which a calculation is not converged.", ge=1
    )
    timeout_s: float = setting(
        0.0,
        "Wall time in s of one run; a relaxation is asked to stop before it and goes on; 0: no "
        "limit.",
        ge=0,
    )
    frozen_after_s: float = setting(
        21600.0, "Time in s without output after which VASP has hung.", gt=0
    )
    monitor_every_s: float = setting(
        30.0, "Time in s between custodian's looks at a calculation that runs.", gt=0
    )
    extra_incar: dict[str, Any] = setting({}, "INCAR tags on top, such as {NCORE = 4, KPAR = 2}.")


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class DFT:
    """The reference method: every energy on the final hull comes from it."""

    engine: Literal["ase", "quantum_espresso", "vasp"] = setting(
        "ase", "Program: 'ase' (any ASE calculator), 'quantum_espresso' or 'vasp'."
    )
    calculator: str = setting(
        "ase.calculators.emt:EMT",
        "ASE calculator as 'module:Class'; EMT is quick, knows Al Ni Cu Pd Ag Pt Au and needs "
        "nothing installed.",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
    )
    arguments: dict[str, Any] = setting({}, "Keyword arguments of the ASE calculator.")
    force_tolerance: float = setting(
        0.01, "Largest force in eV/Å at which a DFT relaxation ends.", gt=0, le=1
    )
    stress_tolerance_gpa: float = setting(
        0.1, "Largest stress in GPa at which a DFT relaxation ends.", gt=0, le=10
    )
    max_steps: int = setting(200, "Steps of a DFT relaxation, at most.", ge=1)
    structures_per_job: int = setting(
        0,
        "Structures of up to 4 atoms that one DFT job computes one after another; larger ones and "
        "relaxations count as several, but not with an ASE calculator; 0: 20 with such a one, else "
        "so few that 24 workers share a round.",
        ge=0,
    )
    single_point_walltime_s: float = setting(
        0.0,
        "Wall time in s that a single point may take; a job asks FireWorks' queue adapter for as "
        "many times that as it has structures; 0: for what my_qadapter.yaml says.",
        ge=0,
    )
    relaxation_walltime_s: float = setting(
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
