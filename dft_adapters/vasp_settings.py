"""Settings of a VASP calculation: presets as data files, the user's keys on top."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hullscreen.dft_adapters.engine import refuse_unknown_keys
from hullscreen.dft_adapters.preset_files import (
    INITIAL_MOMENTS,
    command_words,
    moments,
    positive,
    read_preset,
    typed,
)
from hullscreen.potentials.errors import SettingsError

DEFAULT_PRESET = "vasp-pbe-metals"
TABLE = "dft.vasp"
WHERE = f"[{TABLE}] in hullscreen.toml"
NEEDED = ("input_set", "potcar_functional", "cutoff_ev", "smearing_ev", "kpoint_spacing")
POSITIVE = (
    "cutoff_ev",
    "smearing_ev",
    "kpoint_spacing",
    "scf_threshold_ev",
    "timeout_s",
    "frozen_after_s",
    "monitor_every_s",
)
INTEGERS = ("smearing_order", "max_scf_steps")

# INCAR tags that have a setting, or belong to the structure, the task or the bookkeeping.
OWNED = {
    "ENCUT": "cutoff_ev",
    "ISMEAR": "smearing_order",
    "SIGMA": "smearing_ev",
    "EDIFF": "scf_threshold_ev",
    "NELM": "max_scf_steps",
    "MAGMOM": "initial_moments",
    "ISPIN": "spin",
    "KSPACING": "kpoint_spacing (the grid stays the same through a calculation)",
    "KGAMMA": "kpoint_spacing (grids always contain Γ)",
    "EDIFFG": "force_tolerance under [dft]",
    "NSW": "max_steps under [dft]",
    "IBRION": "hullscreen sets it itself",
    "ISIF": "hullscreen sets it itself",
    "LWAVE": "hullscreen sets it itself",
    "LCHARG": "hullscreen sets it itself",
    "PSTRESS": "hulls are those of zero pressure",
}


@dataclass(frozen=True)
class VaspSettings:
    """Everything that VASP's input files are made from, besides the structure.

    Attributes
    ----------
    input_set
        Name of pymatgen's input set that the INCAR and the choice of POTCARs begin with.
    potcar_functional
        Folder of POTCARs in pymatgen's words: ``"PBE_54"``, ``"LDA_54"``, ...
    cutoff_ev
        ENCUT, eV; one for all structures of a campaign.
    smearing_ev
        SIGMA, eV.
    kpoint_spacing
        Largest distance of k points in Å⁻¹, reciprocal vectors without 2π.
    smearing_order
        ISMEAR, order of the Methfessel–Paxton smearing; tetrahedra (below 0) are refused: their
        forces and stresses are wrong in metals.
    command
        Executable and its launcher, for example ``("srun", "-n", "32", "vasp_std")``.
    potcar_directory
        Folder of the POTCARs; None: where pymatgen looks (``PMG_VASP_PSP_DIR``).
    potcars
        POTCAR by element where it is not the input set's, for example ``{"Ti": "Ti_sv"}``.
    potcar_spec
        Write the names of POTCARs (``POTCAR.spec``) instead of their content, to prepare inputs
        where there are none.
    spin
        Spin-polarise structures that hold an element with a moment in `initial_moments`.
    initial_moments
        Starting moment by element in Bohr magnetons.
    scf_threshold_ev
        EDIFF, eV per cell.
    max_scf_steps
        NELM: after this many electronic steps a calculation is unconverged.
    timeout_s
        Wall time of one run; a relaxation is asked to stop before it and goes on. None: no limit.
    frozen_after_s
        VASP has hung when it printed nothing for so long.
    monitor_every_s
        How often custodian looks at a calculation that runs.
    extra_incar
        INCAR tags on top, for example ``{"NCORE": 4, "KPAR": 2}``; they are part of the settings
        that a campaign's energies share, parallelisation apart.
    """

    input_set: str
    potcar_functional: str
    cutoff_ev: float
    smearing_ev: float
    kpoint_spacing: float
    smearing_order: int = 1
    command: tuple[str, ...] = ("vasp_std",)
    potcar_directory: Path | None = None
    potcars: Mapping[str, str] = field(default_factory=dict)
    potcar_spec: bool = False
    spin: bool = True
    initial_moments: Mapping[str, float] = field(default_factory=lambda: dict(INITIAL_MOMENTS))
    scf_threshold_ev: float = 1e-6
    max_scf_steps: int = 100
    timeout_s: float | None = None
    frozen_after_s: float = 21600.0
    monitor_every_s: float = 30.0
    extra_incar: Mapping[str, Any] = field(default_factory=dict)


def settings_from_table(table: Mapping[str, Any]) -> VaspSettings:
    """Settings of a preset with the keys of ``table`` on top.

    Raises
    ------
    SettingsError
        Unknown key or preset, a missing key, a value of the wrong type, or a smearing that is not
        for metals.
    """
    refuse_unknown_keys(table, ["preset", *(f.name for f in fields(VaspSettings))], WHERE)
    preset = read_preset(
        typed(WHERE, "preset", table.get("preset", DEFAULT_PRESET), str), vasp=True, where=WHERE
    )
    given = {key: value for key, value in table.items() if key != "preset"}
    merged: dict[str, Any] = {**preset, **given}
    for key in ("potcars", "extra_incar"):
        merged[key] = {**preset.get(key, {}), **typed(WHERE, key, given.get(key, {}), Mapping)}
    merged["initial_moments"] = moments(WHERE, given.get("initial_moments", {}))
    for key in NEEDED:
        if key not in merged:
            raise SettingsError(f"set `{key}` under {WHERE}; the preset does not give it")
    for key in POSITIVE:
        if merged.get(key) is not None:
            merged[key] = positive(WHERE, key, merged[key])
    for key in INTEGERS:
        if key in merged:
            merged[key] = typed(WHERE, key, merged[key], int)
    for key in ("input_set", "potcar_functional"):
        typed(WHERE, key, merged[key], str)
    for key in ("spin", "potcar_spec"):
        typed(WHERE, key, merged.get(key, False), bool)
    merged["command"] = command_words(WHERE, merged.get("command", ("vasp_std",)))
    if merged.get("potcar_directory") is not None:
        given_path = typed(WHERE, "potcar_directory", merged["potcar_directory"], (str, Path))
        merged["potcar_directory"] = Path(given_path).expanduser()
    merged["extra_incar"] = _incar_tags(merged["extra_incar"])
    _refuse_unmetallic(merged)
    return VaspSettings(**merged)


def _incar_tags(given: Mapping[str, Any]) -> dict[str, Any]:
    """INCAR tags in capitals; those that have a setting of their own are refused."""
    tags = {tag.upper(): value for tag, value in given.items()}
    for tag in tags:
        if tag in OWNED:
            owner = OWNED[tag]
            told = owner if owner.startswith("hull") else f"what sets it is {owner}"
            raise SettingsError(f"{WHERE}: extra_incar must not hold {tag}; {told}")
    _refuse_unknown_tags(tags)
    return tags


def _refuse_unknown_tags(tags: Collection[str]) -> None:
    """VASP passes over a misspelt tag without a word."""
    if not tags:
        return
    from pymatgen.io.vasp.inputs import Incar

    known = list(Incar.INCAR_PARAMS)
    for tag in tags:
        if tag not in known:
            near = get_close_matches(tag, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "correct or remove it"
            raise SettingsError(
                f"{WHERE}: extra_incar holds {tag}, which is no INCAR tag that pymatgen knows; "
                f"{hint}"
            )


def _refuse_unmetallic(merged: Mapping[str, Any]) -> None:
    order = merged.get("smearing_order", 1)
    if order < 0:
        raise SettingsError(
            f"{WHERE}: smearing_order (ISMEAR) is {order}; expected 0 or more, because the "
            "tetrahedron method gives wrong forces and stresses in metals"
        )
    if merged.get("max_scf_steps", 1) < 1:
        raise SettingsError(f"{WHERE}: max_scf_steps must be 1 or more")
