"""Settings of a Quantum ESPRESSO calculation: presets as data files, the user's keys on top."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hullscreen.dft_adapters.engine import refuse_unknown_keys
from hullscreen.potentials.errors import SettingsError

PRESETS = Path(__file__).with_name("presets")
DEFAULT_PRESET = "debian-lda"
# Starting moments in Bohr magnetons, a little above those of the elements so that the magnetic
# solution is found where there is one; the calculation itself decides.
INITIAL_MOMENTS = {"Cr": 1.5, "Mn": 3.0, "Fe": 2.8, "Co": 2.0, "Ni": 1.0}
# Namelist entries that belong to the structure, the task or the bookkeeping, not to a user.
OWNED = {
    "control": ("calculation", "prefix", "outdir", "pseudo_dir", "tprnfor", "tstress", "nstep"),
    "system": ("nat", "ntyp", "ibrav", "ecutwfc", "ecutrho"),
}
WHERE = "the dft table of engine 'quantum_espresso'"


@dataclass(frozen=True)
class EspressoSettings:
    """Everything a ``pw.x`` input is made from, besides the structure.

    Attributes
    ----------
    pseudopotentials
        Folder of UPF files.
    functional
        ``"LDA"``, ``"PBE"`` or ``"PBEsol"``; every pseudopotential must be made for it.
    cutoff_ry, density_cutoff_ry
        Plane-wave cutoffs of wavefunctions and density, Ry.
    smearing_ry
        Marzari–Vanderbilt smearing, Ry.
    files
        File by element. Empty: the one file in the folder that fits element and functional.
    command
        Executable and its launcher, for example ``("mpirun", "-np", "4", "pw.x")``.
    kpoint_spacing
        Largest distance of k-points in Å⁻¹, reciprocal vectors without 2π. The grid is chosen for
        the start cell and stays through a relaxation.
    spin
        Spin-polarise structures that hold an element of `initial_moments`.
    initial_moments
        Starting moment by element in Bohr magnetons.
    scf_threshold_ry_per_atom
        Convergence threshold of the self-consistent energy.
    max_scf_steps
        After this many iterations a calculation has failed.
    timeout_s
        Wall time after which ``pw.x`` is killed; None waits.
    extra_input
        Namelist entries on top, for example ``{"electrons": {"mixing_beta": 0.3}}``.
    """

    pseudopotentials: Path
    functional: str
    cutoff_ry: float
    density_cutoff_ry: float
    smearing_ry: float
    files: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("pw.x",)
    kpoint_spacing: float = 0.04
    spin: bool = True
    initial_moments: Mapping[str, float] = field(default_factory=lambda: dict(INITIAL_MOMENTS))
    scf_threshold_ry_per_atom: float = 1e-9
    max_scf_steps: int = 100
    timeout_s: float | None = None
    extra_input: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_preset(name: str) -> dict[str, Any]:
    """Table of the preset ``name``.

    Raises
    ------
    SettingsError
        There is none of that name.
    """
    path = PRESETS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(repr(p.stem) for p in PRESETS.glob("*.toml")))
        raise SettingsError(f"{WHERE} has no preset {name!r}; presets: {known}")
    with path.open("rb") as stream:
        return tomllib.load(stream)


def settings_from_table(table: Mapping[str, Any]) -> EspressoSettings:
    """Settings of a preset with the keys of ``table`` on top.

    Raises
    ------
    SettingsError
        Unknown key or preset, a missing key, or a value of the wrong type.
    """
    known = [f.name for f in fields(EspressoSettings)]
    refuse_unknown_keys(table, ["preset", *known], WHERE)
    preset = read_preset(_typed("preset", table.get("preset", DEFAULT_PRESET), str))
    given = {key: value for key, value in table.items() if key != "preset"}
    merged: dict[str, Any] = {**preset, **given}
    for key in ("files", "initial_moments"):
        extra = _typed(key, given.get(key, {}), Mapping)
        base = preset.get(key, INITIAL_MOMENTS if key == "initial_moments" else {})
        merged[key] = {**base, **extra}
    missing = [k for k in known[:5] if k not in merged]
    if missing:
        raise SettingsError(f"{WHERE} needs {missing[0]!r}, which the preset does not give")
    merged["pseudopotentials"] = Path(
        _typed("pseudopotentials", merged["pseudopotentials"], (str, Path))
    ).expanduser()
    merged["command"] = _command(merged.get("command", ("pw.x",)))
    for key in ("cutoff_ry", "density_cutoff_ry", "smearing_ry"):
        merged[key] = _positive(key, merged[key])
    for key in ("kpoint_spacing", "scf_threshold_ry_per_atom", "timeout_s"):
        if merged.get(key) is not None:
            merged[key] = _positive(key, merged[key])
    if "max_scf_steps" in merged:
        merged["max_scf_steps"] = int(_positive("max_scf_steps", merged["max_scf_steps"]))
    _typed("spin", merged.get("spin", True), bool)
    _typed("functional", merged["functional"], str)
    for namelist, entries in _typed("extra_input", merged.get("extra_input", {}), Mapping).items():
        _typed(f"extra_input.{namelist}", entries, Mapping)
        for entry in entries:
            if entry.lower() in OWNED.get(namelist.lower(), ()):
                raise SettingsError(
                    f"{WHERE}: extra_input.{namelist} must not set {entry!r}, which hullscreen "
                    "sets itself"
                )
    return EspressoSettings(**merged)


def _typed(key: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__.lower() for k in kinds)
        raise SettingsError(f"{WHERE}: {key} must be a {expected}, got {value!r}")
    return value


def _positive(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise SettingsError(f"{WHERE}: {key} must be a positive number, got {value!r}")
    return float(value)


def _command(value: Any) -> tuple[str, ...]:
    words = shlex.split(value) if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not words:
        raise SettingsError(f"{WHERE}: command must name an executable, got {value!r}")
    return tuple(str(word) for word in words)
