"""Quantum ESPRESSO's ``pw.x`` as a DFT engine: scf and vc-relax.

Input is written by ASE, results are read from the XML file. Wavefunctions and densities go to a
``scratch`` folder that does not outlive the calculation.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hullscreen.dft_adapters.engine import (
    CalculationError,
    DFTResult,
    EngineMissingError,
    Watch,
    require_finite,
)
from hullscreen.dft_adapters.espresso_output import (
    CRASH_FILE,
    FAILURES,
    GOOD_CODES,
    XML_FILE,
    parse_xml,
)
from hullscreen.dft_adapters.espresso_settings import EspressoSettings, settings_from_table
from hullscreen.dft_adapters.file_engine import Failure, Task, run_calculation
from hullscreen.dft_adapters.pseudopotentials import (
    Pseudopotential,
    find_pseudopotentials,
    read_header,
)
from hullscreen.dft_adapters.relaxation import VOLUME_RANGE
from hullscreen.dft_adapters.runner import find_executable
from hullscreen.potentials.structures import FloatArray

if TYPE_CHECKING:
    from ase import Atoms

INPUT_FILE = "pw.in"
SCRATCH = "scratch"
PREFIX = "pwscf"
# vc-relax also asks for a small change of energy between steps: 0.03 meV/atom.
ENERGY_CHANGE_RY_PER_ATOM = 2e-6
# Settings that do not change energies.
NOT_IN_FINGERPRINT = ("command", "timeout_s", "pseudopotentials", "files", "max_scf_steps")


def espresso_engine_from_table(table: Mapping[str, Any]) -> QuantumEspresso:
    """Engine of a settings table: ``preset`` and the keys of `EspressoSettings`."""
    return QuantumEspresso(settings_from_table(table))


def kpoint_grid(cell: FloatArray, spacing: float) -> tuple[int, int, int]:
    """Γ-centred grid whose points are nowhere farther apart than ``spacing``.

    Parameters
    ----------
    cell
        Lattice vectors as rows in Å, shape (3, 3).
    spacing
        In Å⁻¹, reciprocal vectors without 2π.
    """
    lengths = np.linalg.norm(np.linalg.inv(cell), axis=0)
    # Rounding first: equal axes of a cubic cell must not get different grids.
    first, second, third = (max(1, math.ceil(round(n / spacing, 6))) for n in lengths)
    return first, second, third


class QuantumEspresso:
    """``pw.x`` with one set of settings."""

    name = "Quantum ESPRESSO"
    failures: Sequence[Failure] = FAILURES
    failure_files: Sequence[str] = (CRASH_FILE,)
    result_files: Sequence[str] = (XML_FILE,)
    scratch_folders: Sequence[str] = (SCRATCH,)
    good_codes: Sequence[int] = GOOD_CODES

    def __init__(self, settings: EspressoSettings) -> None:
        self.settings = settings

    @property
    def timeout_s(self) -> float | None:
        """Wall time after which ``pw.x`` is killed."""
        return self.settings.timeout_s

    def check(self, elements: Sequence[str]) -> None:
        """Look for the executable and the pseudopotentials of ``elements``.

        Raises
        ------
        EngineMissingError
            One of them is missing, or does not fit.
        """
        command = self.settings.command
        for word in (command[0], *(w for w in command[1:] if Path(w).name.endswith(".x"))):
            find_executable(word)
        self.pseudopotentials(elements)

    def pseudopotentials(self, elements: Sequence[str]) -> dict[str, Pseudopotential]:
        """Pseudopotential of each element."""
        settings = self.settings
        lacking = [e for e in elements if settings.files and e not in settings.files]
        if lacking:
            raise EngineMissingError(
                "missing_pseudopotential",
                f"the settings name no {settings.functional} pseudopotential for {lacking[0]}, "
                f"only for {', '.join(sorted(settings.files))}; add it under `files` in the dft "
                "table, or choose another preset",
            )
        return find_pseudopotentials(
            settings.pseudopotentials, settings.files, settings.functional, elements
        )

    def fingerprint(self) -> str:
        """Hash of the settings that change energies and of the pseudopotential files."""
        settings = self.settings
        folder = settings.pseudopotentials
        if settings.files:
            paths = [folder / name for _, name in sorted(settings.files.items())]
        else:
            paths = [p for p in sorted(folder.glob("*")) if p.suffix.lower() == ".upf"]
        headers = [read_header(path) for path in paths if path.is_file()]
        content = {
            "engine": "quantum_espresso",
            "files": sorted(
                (h.element, h.sha256)
                for h in headers
                if h is not None and h.functional == settings.functional
            ),
            **{k: v for k, v in vars(settings).items() if k not in NOT_IN_FINGERPRINT},
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def single_point(self, atoms: Atoms, directory: Path) -> DFTResult:
        """One scf with forces and stress; a result found in ``directory`` is reused."""
        return run_calculation(self, atoms, directory, Task("single_point"))

    def relax(
        self,
        atoms: Atoms,
        directory: Path,
        *,
        force_tolerance: float,
        stress_tolerance: float,
        max_steps: int,
        watch: Watch | None = None,
    ) -> DFTResult:
        """``vc-relax``; see `hullscreen.dft_adapters.engine.Engine.relax`.

        ``watch`` is not called: pw.x relaxes inside one process and tells the stress of its last
        step only. The energy is that of a last scf in the basis of the final cell.
        """
        del watch
        task = Task("relax", force_tolerance, stress_tolerance, max_steps)
        return run_calculation(self, atoms, directory, task)

    def command(self, directory: Path) -> list[str]:
        """``pw.x -in pw.in`` with its launcher."""
        del directory
        return [*self.settings.command, "-in", INPUT_FILE]

    def write_inputs(self, atoms: Atoms, directory: Path, task: Task) -> list[str]:
        """Write ``pw.in``."""
        from ase.io.espresso import write_espresso_in

        settings = self.settings
        potentials = self.pseudopotentials(sorted(set(atoms.symbols)))
        written = atoms.copy()
        written.set_constraint()
        moments = settings.initial_moments if settings.spin else {}
        # pw.x counts starting magnetisation in units of the valence electrons.
        fractions = {
            element: min(moments.get(element, 0.0) / potential.valence, 0.9)
            for element, potential in potentials.items()
        }
        written.set_initial_magnetic_moments([fractions[symbol] for symbol in atoms.symbols])
        with (directory / INPUT_FILE).open("w", encoding="utf-8") as stream:
            write_espresso_in(
                stream,
                written,
                input_data=self._namelists(len(atoms), task),
                pseudopotentials={e: p.path.name for e, p in potentials.items()},
                kpts=kpoint_grid(np.array(atoms.cell[:]), settings.kpoint_spacing),
            )
        return [INPUT_FILE]

    def _namelists(self, n_atoms: int, task: Task) -> dict[str, dict[str, Any]]:
        from ase.units import Bohr, GPa, Rydberg

        settings = self.settings
        namelists: dict[str, dict[str, Any]] = {
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
            namelists["control"] |= {
                "nstep": task.max_steps,
                "etot_conv_thr": ENERGY_CHANGE_RY_PER_ATOM * n_atoms,
                # pw.x looks at components, we at the length of each force.
                "forc_conv_thr": task.force_tolerance / math.sqrt(3.0) * Bohr / Rydberg,
            }
            kbar = 0.1 * GPa
            namelists["cell"]["press_conv_thr"] = task.stress_tolerance / kbar
        for name, entries in settings.extra_input.items():
            namelists.setdefault(name.lower(), {}).update(entries)
        return namelists

    def read_results(self, directory: Path, atoms: Atoms, task: Task) -> DFTResult:
        """Result from the XML file, which is kept beside the input."""
        source = directory / SCRATCH / f"{PREFIX}.save" / XML_FILE
        if source.is_file():
            shutil.copyfile(source, directory / XML_FILE)
        output = parse_xml(directory / XML_FILE)
        require_finite(
            output.energy,
            output.forces,
            output.stress,
            n_atoms=len(atoms),
            who="pw.x",
            directory=directory,
        )
        ratio = abs(np.linalg.det(output.cell)) / atoms.get_volume()
        if not VOLUME_RANGE[0] < ratio < VOLUME_RANGE[1]:
            raise CalculationError(
                "collapsed" if ratio < 1.0 else "exploded",
                f"the relaxation by pw.x in {directory} changed the volume {ratio:.2f} times; its "
                "start geometry is far from any crystal, or a pseudopotential is bad",
                directory,
            )
        converged = task.kind == "single_point" or output.geometry_converged
        return DFTResult(
            energy=output.energy,
            forces=output.forces,
            stress=output.stress,
            cell=output.cell,
            positions=output.positions,
            converged=converged,
            n_evaluations=output.n_scf,
            cpu_seconds=0.0,  # the runner fills it in
            engine=self.name,
            reason="" if converged else "step_limit",
        )
