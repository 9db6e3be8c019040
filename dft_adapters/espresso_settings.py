"""Settings of a Quantum ESPRESSO calculation: presets as data files, the user's keys on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hullscreen.dft_adapters.engine import refuse_unknown_keys
from hullscreen.dft_adapters.preset_files import (
    INITIAL_MOMENTS,
    command_words,
    is_polarised,
    moments,
    positive,
    read_preset,
    typed,
)
from hullscreen.dft_adapters.pseudopotentials import suggested_cutoffs
from hullscreen.potentials.errors import SettingsError

DEFAULT_PRESET = "debian-lda"
# Namelist entries that belong to the structure, the task or the bookkeeping, not to a user.
OWNED = {
    "control": ("calculation", "prefix", "outdir", "pseudo_dir", "tprnfor", "tstress", "nstep"),
    "system": ("nat", "ntyp", "ibrav", "ecutwfc", "ecutrho"),
    # Without it an unconverged scf would look like a result.
    "electrons": ("scf_must_converge",),
}
# The density holds squares of the waves.
LEAST_DUAL = 4.0
TABLE = "dft.quantum_espresso"
WHERE = f"[{TABLE}] in hullscreen.toml"
# Namelist entries that steer how a converged state is reached, not which: a user may change them
# during a campaign. What begins with one of these words is of the same kind.
HARMLESS = ("diago_", "fire_", "trust_radius_")
HARMLESS_ENTRIES = frozenset(
    {
        # how electrons and atoms reach their ground state
        *("mixing_beta", "mixing_mode", "mixing_ndim", "diagonalization", "electron_maxstep"),
        *("startingwfc", "startingpot", "adaptive_thr", "conv_thr_init", "conv_thr_multi"),
        *("bfgs_ndim", "w_1", "w_2", "pot_extrapolation", "wfc_extrapolation", "cell_factor"),
        # how long, and what is written
        *("max_seconds", "verbosity", "disk_io", "iprint", "title", "wf_collect", "wfcdir"),
    }
)


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
        Spin-polarise structures that hold elements of `initial_moments`.
    spin_from_fraction
        Share of these elements from which a structure is polarised; 0: any.
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
    kpoint_spacing: float = 0.03
    spin: bool = True
    spin_from_fraction: float = 0.0
    initial_moments: Mapping[str, float] = field(default_factory=lambda: dict(INITIAL_MOMENTS))
    scf_threshold_ry_per_atom: float = 1e-9
    max_scf_steps: int = 100
    timeout_s: float | None = None
    extra_input: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def is_polarised(self, symbols: Sequence[str]) -> bool:
        """Whether a structure of these atoms is computed with spin."""
        magnetic = {element for element, moment in self.initial_moments.items() if moment}
        return self.spin and is_polarised(symbols, magnetic, self.spin_from_fraction)


def is_harmless(entry: str) -> bool:
    """Whether a namelist entry changes no converged energy."""
    name = entry.lower()
    return name in HARMLESS_ENTRIES or name.startswith(HARMLESS)


def settings_from_table(table: Mapping[str, Any]) -> EspressoSettings:
    """Settings of a preset with the keys of ``table`` on top.

    Cutoffs that neither gives are the largest that the headers of the ``files`` suggest.

    Raises
    ------
    SettingsError
        Unknown key or preset, a missing key, or a value of the wrong type.
    """
    known = [f.name for f in fields(EspressoSettings)]
    refuse_unknown_keys(table, ["preset", *known], WHERE)
    name = typed(WHERE, "preset", table.get("preset", DEFAULT_PRESET), str)
    preset = read_preset(name, vasp=False, where=WHERE)
    given = {key: value for key, value in table.items() if key != "preset"}
    merged: dict[str, Any] = {**preset, **given}
    files = typed(WHERE, "files", given.get("files", {}), Mapping)
    merged["files"] = {**preset.get("files", {}), **files}
    merged["initial_moments"] = moments(WHERE, given.get("initial_moments", {}))
    _require(merged, ("pseudopotentials", "functional", "smearing_ry"))
    folder = typed(WHERE, "pseudopotentials", merged["pseudopotentials"], (str, Path))
    merged["pseudopotentials"] = Path(folder).expanduser()
    if "cutoff_ry" not in merged:
        _require(merged, ("files",))
        paths = [merged["pseudopotentials"] / file for file in merged["files"].values()]
        merged["cutoff_ry"], density = suggested_cutoffs(paths)
        merged.setdefault("density_cutoff_ry", density)
    _require(merged, ("density_cutoff_ry",))
    merged["command"] = command_words(WHERE, merged.get("command", ("pw.x",)))
    for key in ("cutoff_ry", "density_cutoff_ry", "smearing_ry"):
        merged[key] = positive(WHERE, key, merged[key])
    if merged["density_cutoff_ry"] < LEAST_DUAL * merged["cutoff_ry"]:
        raise SettingsError(
            f"{WHERE}: density_cutoff_ry is {merged['density_cutoff_ry']:g}, the preset's if none "
            f"is given, and cutoff_ry {merged['cutoff_ry']:g}; expected the density's to be at "
            "least four times as large"
        )
    for key in ("kpoint_spacing", "scf_threshold_ry_per_atom", "timeout_s"):
        if merged.get(key) is not None:
            merged[key] = positive(WHERE, key, merged[key])
    if merged.get("spin_from_fraction"):
        merged["spin_from_fraction"] = positive(
            WHERE, "spin_from_fraction", merged["spin_from_fraction"]
        )
    if "max_scf_steps" in merged:
        merged["max_scf_steps"] = int(positive(WHERE, "max_scf_steps", merged["max_scf_steps"]))
    typed(WHERE, "spin", merged.get("spin", True), bool)
    typed(WHERE, "functional", merged["functional"], str)
    _check_extra_input(merged.get("extra_input", {}))
    return EspressoSettings(**merged)


def _require(merged: Mapping[str, Any], keys: Sequence[str]) -> None:
    missing = [key for key in keys if not merged.get(key)]
    if missing:
        raise SettingsError(f"set `{missing[0]}` under {WHERE}; the preset does not give it")


def _check_extra_input(extra_input: Any) -> None:
    for namelist, entries in typed(WHERE, "extra_input", extra_input, Mapping).items():
        typed(WHERE, f"extra_input.{namelist}", entries, Mapping)
        for entry in entries:
            if entry.lower() in OWNED.get(namelist.lower(), ()):
                raise SettingsError(
                    f"{WHERE}: extra_input.{namelist} must not set {entry!r}, which hullscreen "
                    "sets itself"
                )
