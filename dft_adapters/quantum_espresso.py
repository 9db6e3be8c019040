"""Quantum ESPRESSO's ``pw.x`` as a DFT engine: scf and vc-relax.

Input is written by ASE, results are read from the XML file. Wavefunctions and densities go to a
``scratch`` folder that does not outlive the calculation.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hullscreen.dft_adapters.corrections import Correction, Reached
from hullscreen.dft_adapters.engine import (
    CalculationError,
    DFTResult,
    EngineMissingError,
    Watch,
    require_finite,
)
from hullscreen.dft_adapters.espresso_failures import (
    CORRECTIONS,
    CRASH_FILE,
    FAILURES,
    FIRST_WORDS,
    GOOD_CODES,
    UNBUFFERED,
)
from hullscreen.dft_adapters.espresso_input import PREFIX, SCRATCH, deciding_input, namelists
from hullscreen.dft_adapters.espresso_output import (
    XML_FILE,
    EspressoOutput,
    is_whole,
    last_step,
    parse_xml,
)
from hullscreen.dft_adapters.espresso_settings import (
    TABLE,
    EspressoSettings,
    settings_from_table,
)
from hullscreen.dft_adapters.failures import OUTPUT_FILE, Failure
from hullscreen.dft_adapters.file_engine import (
    Attempt,
    Task,
    run_calculation,
)
from hullscreen.dft_adapters.kpoints import kpoint_grid
from hullscreen.dft_adapters.model_hessian import shortest_distance
from hullscreen.dft_adapters.pseudopotentials import (
    Pseudopotential,
    find_pseudopotentials,
)
from hullscreen.dft_adapters.relaxation import SHORTEST_DISTANCE_ANGSTROM, VOLUME_RANGE
from hullscreen.dft_adapters.runner import find_executable

if TYPE_CHECKING:
    from ase import Atoms

INPUT_FILE = "pw.in"
# Settings that do not change energies.
NOT_IN_FINGERPRINT = ("command", "timeout_s", "pseudopotentials", "files", "max_scf_steps")
# After a relaxation that ended short of its tolerances: how far beyond them it may be.
FORCE_SLACK, STRESS_SLACK = 2.0, 5.0
STRESS_OF_A_NEW_BASIS = 0.5  # GPa: that of the last scf, in the plane waves of the final cell
PRINTED_TO_EV = 1e-6  # pw.x prints 1e-8 Ry
STALLED = "history already reset at previous step: stopping"


def espresso_engine_from_table(table: Mapping[str, Any]) -> QuantumEspresso:
    """Engine of a settings table: ``preset`` and the keys of `EspressoSettings`."""
    return QuantumEspresso(settings_from_table(table))


class QuantumEspresso:
    """``pw.x`` with one set of settings."""

    name = "Quantum ESPRESSO"
    table: str = TABLE
    first_words: str = FIRST_WORDS
    failures: Sequence[Failure] = FAILURES
    corrections: Mapping[str, Sequence[Correction]] = CORRECTIONS
    environment: Mapping[str, str] = UNBUFFERED
    failure_files: Sequence[str] = (CRASH_FILE,)
    result_files: Sequence[str] = (XML_FILE,)
    scratch_folders: Sequence[str] = (SCRATCH,)
    good_codes: Sequence[int] = GOOD_CODES

    def __init__(self, settings: EspressoSettings) -> None:
        self.settings = settings
        self._first_md5: dict[Path, str] = {}

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
                f"only for {', '.join(sorted(settings.files))}; add it under `files` in "
                f"[{TABLE}], or choose another preset",
            )
        found = find_pseudopotentials(
            settings.pseudopotentials, settings.files, settings.functional, elements
        )
        for potential in found.values():
            self._refuse_change(potential)
        return found

    def _refuse_change(self, potential: Pseudopotential) -> None:
        """The fingerprint that results are stored under is that of the files as they were first."""
        if self._first_md5.setdefault(potential.path, potential.md5) != potential.md5:
            raise EngineMissingError(
                "wrong_pseudopotential",
                f"the pseudopotential {str(potential.path)!r} has changed while calculations with "
                "it were under way; put the earlier file back, or begin another campaign",
            )

    def content(self, elements: Sequence[str]) -> dict[str, Any]:
        """Settings that change energies, and hashes of the pseudopotentials of ``elements``."""
        settings = self.settings
        kept = {k: v for k, v in vars(settings).items() if k not in NOT_IN_FINGERPRINT}
        moments = {e: m for e, m in settings.initial_moments.items() if e in elements}
        return {
            "engine": "quantum_espresso",
            **kept,
            "initial_moments": moments,
            "extra_input": deciding_input(settings.extra_input),
            "files": {e: p.sha256 for e, p in self.pseudopotentials(elements).items()},
        }

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

    def write_inputs(
        self, atoms: Atoms, directory: Path, task: Task, attempt: Attempt
    ) -> list[str]:
        """Write ``pw.in``; the grid of k points is that of ``atoms`` in every attempt."""
        from ase.io.espresso import write_espresso_in

        settings = self.settings
        potentials = self.pseudopotentials(sorted(set(atoms.symbols)))
        written = atoms.copy()
        written.set_constraint()
        if attempt.reached is not None:
            written.set_cell(attempt.reached.cell)
            written.set_positions(attempt.reached.positions)
        moments = settings.initial_moments if settings.is_polarised(atoms.symbols) else {}
        # pw.x counts starting magnetisation in units of the valence electrons.
        fractions = {
            element: min(moments.get(element, 0.0) / potential.valence, 0.9)
            for element, potential in potentials.items()
        }
        written.set_initial_magnetic_moments([fractions[symbol] for symbol in atoms.symbols])
        # pw.x refuses to go on from files that it had no time to write.
        restart = attempt.restart and is_whole(_xml_file(directory))
        with (directory / INPUT_FILE).open("w", encoding="utf-8") as stream:
            write_espresso_in(
                stream,
                written,
                input_data=namelists(settings, len(atoms), task, attempt, restart=restart),
                pseudopotentials={e: p.path.name for e, p in potentials.items()},
                kpts=kpoint_grid(np.array(atoms.cell[:]), settings.kpoint_spacing),
            )
        return [INPUT_FILE]

    def reached(self, directory: Path, atoms: Atoms) -> Reached | None:
        """The last step in the XML file, if it is still a crystal like ``atoms``."""
        found = last_step(_xml_file(directory))
        if found is None or found.positions.shape != (len(atoms), 3):
            return None
        ratio = abs(np.linalg.det(found.cell)) / atoms.get_volume()
        sane = VOLUME_RANGE[0] < ratio < VOLUME_RANGE[1] and np.isfinite(found.positions).all()
        return found if sane else None

    def read_results(self, directory: Path, atoms: Atoms, task: Task) -> DFTResult:
        """Result from the XML file, which is kept beside the input."""
        source = _xml_file(directory)
        if source.is_file() and source.parent != directory:
            shutil.copyfile(source, directory / XML_FILE)
        output = parse_xml(directory / XML_FILE)
        said = (directory / OUTPUT_FILE).read_text(encoding="utf-8", errors="replace")
        _require_same_energy(output, said, directory)
        if output.symbols != tuple(atoms.symbols):
            raise CalculationError(
                "unreadable_result",
                f"{XML_FILE} in {directory} holds {len(output.symbols)} atoms, not those of "
                f"{atoms.get_chemical_formula()} in their order; it is damaged",
                directory,
            )
        self._require_our_pseudopotentials(atoms, said, directory)
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
        closest = shortest_distance(output.cell, output.positions, SHORTEST_DISTANCE_ANGSTROM)
        if task.kind == "relax" and closest < SHORTEST_DISTANCE_ANGSTROM:
            raise CalculationError(
                "collapsed",
                f"the relaxation by pw.x in {directory} ended with two atoms {closest:.2f} Å "
                "apart; its start geometry is far from any crystal, or a pseudopotential is bad",
                directory,
            )
        if STALLED in said and not _within(output, task):
            raise CalculationError(
                "stalled",
                f"the relaxation by pw.x in {directory} ended short of its tolerances; its start "
                "geometry may be at a saddle, or the tolerances are beyond the cutoff",
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

    def _require_our_pseudopotentials(self, atoms: Atoms, said: str, directory: Path) -> None:
        """pw.x looks for files in folders of its own as well, and may find others there."""
        used = set(re.findall(r"MD5 check sum:\s*([0-9a-f]{32})", said))
        ours = {p.md5 for p in self.pseudopotentials(sorted(set(atoms.symbols))).values()}
        if used and used != ours:
            raise EngineMissingError(
                "wrong_pseudopotential",
                f"pw.x read other pseudopotentials in {directory} than those in "
                f"{str(self.settings.pseudopotentials)!r}; see {OUTPUT_FILE} there for their "
                "folder, and put the files back",
            )


def _xml_file(directory: Path) -> Path:
    """Where pw.x wrote, or where it is kept."""
    scratch = directory / SCRATCH / f"{PREFIX}.save" / XML_FILE
    return scratch if scratch.is_file() else directory / XML_FILE


def _require_same_energy(output: EspressoOutput, said: str, directory: Path) -> None:
    """The XML file must hold what pw.x said: a damaged file may still be XML."""
    from ase.units import Rydberg

    energies = re.findall(r"^!\s+total energy\s+=\s+(\S+) Ry", said, re.MULTILINE)
    try:
        printed = float(energies[-1]) * Rydberg if energies else output.energy
    except ValueError:  # asterisks: it does not fit its columns
        printed = math.nan
    if not abs(printed - output.energy) <= PRINTED_TO_EV:
        raise CalculationError(
            "unreadable_result",
            f"the energy in {XML_FILE} is not the one that pw.x printed to {OUTPUT_FILE} in "
            f"{directory}; one of the files is damaged",
            directory,
        )


def _within(output: EspressoOutput, task: Task) -> bool:
    """Whether a relaxation that gave up is nevertheless as good as at rest."""
    from ase.units import GPa

    force = np.linalg.norm(output.forces, axis=1).max()
    limit = max(STRESS_SLACK * task.stress_tolerance, STRESS_OF_A_NEW_BASIS * GPa)
    return bool(force < FORCE_SLACK * task.force_tolerance and np.abs(output.stress).max() < limit)
