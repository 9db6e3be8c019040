"""The namelists of ``pw.x``'s input; ASE writes them, with the cell, the atoms and the k points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hullscreen.dft_adapters.espresso_settings import EspressoSettings, is_harmless
from hullscreen.dft_adapters.file_engine import Attempt, Task

SCRATCH = "scratch"
PREFIX = "pwscf"
# vc-relax also asks for a small change of energy between steps: 0.03 meV/atom.
ENERGY_CHANGE_RY_PER_ATOM = 2e-6
# pw.x is asked to stop by itself, so that it can go on, before it is killed.
SHARE_OF_TIMEOUT = 0.9


def namelists(
    settings: EspressoSettings, n_atoms: int, task: Task, attempt: Attempt, *, restart: bool
) -> dict[str, dict[str, Any]]:
    """The namelists of a calculation, by their names: settings, task, and what is tried this time.

    ``restart`` lets pw.x go on from the files that it has left.
    """
    from ase.units import Bohr, GPa, Rydberg

    given: dict[str, dict[str, Any]] = {
        "control": {
            "calculation": "vc-relax" if task.kind == "relax" else "scf",
            "prefix": PREFIX,
            "outdir": SCRATCH,
            "pseudo_dir": str(settings.pseudopotentials.absolute()),
            "tprnfor": True,
            "tstress": True,
        },
        "system": {
            "ecutwfc": settings.cutoff_ry,
            "ecutrho": settings.density_cutoff_ry,
            "occupations": "smearing",
            "smearing": "mv",
            "degauss": settings.smearing_ry,
        },
        "electrons": {
            "conv_thr": settings.scf_threshold_ry_per_atom * n_atoms,
            "electron_maxstep": settings.max_scf_steps,
        },
        "ions": {},
        "cell": {},
    }
    if task.kind == "relax":
        given["control"] |= {
            "nstep": task.max_steps,
            "etot_conv_thr": ENERGY_CHANGE_RY_PER_ATOM * n_atoms,
            # pw.x looks at components, we at the length of each force.
            "forc_conv_thr": task.force_tolerance / math.sqrt(3.0) * Bohr / Rydberg,
        }
        kbar = 0.1 * GPa
        given["cell"]["press_conv_thr"] = task.stress_tolerance / kbar
    if settings.timeout_s is not None:
        given["control"]["max_seconds"] = SHARE_OF_TIMEOUT * settings.timeout_s
    changes = [settings.extra_input, *(one.changes for one in attempt.corrections)]
    for name, entries in (item for change in changes for item in change.items()):
        given.setdefault(name.lower(), {}).update(entries)
    if restart:
        given["control"]["restart_mode"] = "restart"
    return {
        name: {key: value for key, value in entries.items() if value is not None}
        for name, entries in given.items()
    }


def deciding_input(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The namelist entries that may change energies; namelists without any are left out."""
    deciding = {
        name: {key: value for key, value in entries.items() if not is_harmless(key)}
        for name, entries in given.items()
    }
    return {name: entries for name, entries in deciding.items() if entries}
