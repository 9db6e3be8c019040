"""VASP as a DFT engine: inputs from pymatgen's sets, runs under custodian, results by pymatgen.

custodian works in a process of its own (`hullscreen.dft_adapters.vasp_job`), which ends with the
worker, and takes VASP with it. Its corrections are part of the result; one that would change
energies makes the result none, for energies of different settings never meet on one hull.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
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
from hullscreen.dft_adapters.failures import Failure
from hullscreen.dft_adapters.file_engine import Attempt, Task, run_calculation
from hullscreen.dft_adapters.relaxation import VOLUME_RANGE
from hullscreen.dft_adapters.runner import find_executable
from hullscreen.dft_adapters.vasp_failures import CORRECTIONS, FAILURES
from hullscreen.dft_adapters.vasp_inputs import (
    HARMLESS,
    INPUTS,
    SAME_FOR_ALL,
    Arrangement,
    write_inputs,
)
from hullscreen.dft_adapters.vasp_output import parse_vasprun, sound_contcar
from hullscreen.dft_adapters.vasp_potcars import (
    find_potcars,
    input_set_class,
    input_set_incar,
    known_potcars,
    require_readable,
)
from hullscreen.dft_adapters.vasp_runs import REPORT_FILE, Job, run_folders, steps_in, write_job
from hullscreen.dft_adapters.vasp_settings import TABLE, VaspSettings, settings_from_table
from hullscreen.potentials.structures import FloatArray

if TYPE_CHECKING:
    from ase import Atoms

# Settings that do not change energies, or are in the fingerprint in another form.
NOT_IN_FINGERPRINT = (
    "command",
    "potcar_directory",
    "potcars",
    "extra_incar",
    "max_scf_steps",
    "timeout_s",
    "frozen_after_s",
    "monitor_every_s",
)
# VASP is asked to stop in time; custodian's process is killed so much after the limit.
GRACE = 1.1


def vasp_engine_from_table(table: Mapping[str, Any]) -> Vasp:
    """Engine of a settings table: ``preset`` and the keys of `VaspSettings`."""
    return Vasp(settings_from_table(table))


class Vasp:
    """``vasp_std`` with one set of settings."""

    name = "VASP"
    table: str = TABLE
    # custodian comes first, and says of its own that VASP did not begin.
    first_words: str = ""
    failures: Sequence[Failure] = FAILURES
    corrections: Mapping[str, Sequence[Correction]] = CORRECTIONS
    failure_files: Sequence[str] = ()
    result_files: Sequence[str] = (REPORT_FILE,)
    scratch_folders: Sequence[str] = ()
    good_codes: Sequence[int] = (0,)

    def __init__(self, settings: VaspSettings) -> None:
        self.settings = settings

    @property
    def environment(self) -> Mapping[str, str]:
        """Where the other process finds this package, also if it is not installed."""
        package = sys.modules[__name__.partition(".")[0]]
        here = [str(Path(folder).absolute().parent) for folder in package.__path__]
        known = os.environ.get("PYTHONPATH", "")
        return {"PYTHONPATH": os.pathsep.join([*here, *([known] if known else [])])}

    @property
    def timeout_s(self) -> float | None:
        """Wall time after which custodian and VASP are killed."""
        limit = self.settings.timeout_s
        return None if limit is None else GRACE * limit

    def check(self, elements: Sequence[str]) -> None:
        """Look for custodian, the executable and the POTCARs of ``elements``.

        Raises
        ------
        EngineMissingError
            One of them is missing, or does not fit.
        """
        if importlib.util.find_spec("custodian") is None:
            raise EngineMissingError(
                "missing_custodian",
                "VASP runs under custodian, which is not installed: pip install custodian",
            )
        command = self.settings.command
        for word in (command[0], *(w for w in command[1:] if Path(w).name.startswith("vasp"))):
            find_executable(word)
        input_set_class(self.settings.input_set)
        if not self.settings.potcar_spec:
            require_readable(find_potcars(self.settings, elements).values())

    def content(self, elements: Sequence[str]) -> dict[str, Any]:
        """Settings that change energies, and the POTCARs of ``elements``."""
        settings = self.settings
        kept = {k: v for k, v in vars(settings).items() if k not in NOT_IN_FINGERPRINT}
        moments = {e: m for e, m in settings.initial_moments.items() if e in elements}
        return {
            "engine": "vasp",
            **kept,
            "input_set_incar": input_set_incar(settings.input_set),
            "same_for_all": {tag: value for tag, (value, _) in SAME_FOR_ALL.items()},
            "initial_moments": moments,
            "incar": {k: v for k, v in settings.extra_incar.items() if k not in HARMLESS},
            "potcar_files": known_potcars(settings, elements),
        }

    def single_point(self, atoms: Atoms, directory: Path) -> DFTResult:
        """One static run with forces and stress; a result found in ``directory`` is reused."""
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
        """ISIF = 3, then static; see `hullscreen.dft_adapters.engine.Engine.relax`.

        ``watch`` is not called: VASP relaxes inside one process. The energy is that of a static run
        in the basis of the final cell, which counts as an evaluation.
        """
        del watch
        task = Task("relax", force_tolerance, stress_tolerance, max_steps)
        return run_calculation(self, atoms, directory, task)

    def command(self, directory: Path) -> list[str]:
        """The process that runs VASP under custodian."""
        del directory
        find_executable(self.settings.command[0])
        return [sys.executable, "-m", "hullscreen.dft_adapters.vasp_job"]

    def write_inputs(
        self, atoms: Atoms, directory: Path, task: Task, attempt: Attempt
    ) -> list[str]:
        """Write VASP's files and the job of the process that runs it."""
        settings = self.settings
        names = write_inputs(settings, atoms, directory, task, attempt)
        relaxes = task.kind == "relax"
        write_job(
            directory,
            Job(
                command=settings.command,
                relax=relaxes,
                force_tolerance=task.force_tolerance,
                stress_tolerance=task.stress_tolerance,
                max_steps=task.max_steps,
                timeout_s=settings.timeout_s,
                frozen_after_s=settings.frozen_after_s,
                monitor_every_s=settings.monitor_every_s,
            ),
        )
        return names

    def reached(self, directory: Path, atoms: Atoms) -> Reached | None:
        """Geometry of the latest CONTCAR, if it is whole and still a crystal."""
        folders = run_folders(directory)
        n_evaluations = sum(steps_in(folder) for folder in folders)
        for folder in reversed(run_folders(directory, "relax")):
            found = sound_contcar(folder / "CONTCAR", directory / INPUTS / "POSCAR")
            if found is not None:
                cell = np.array(found.lattice.matrix)
                arranged = self._restored(atoms, cell, np.array(found.frac_coords))
                return Reached(*arranged, n_evaluations)
        return None

    def _restored(
        self, atoms: Atoms, cell: FloatArray, fractions: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Cell and positions of POSCAR's order as ``atoms`` has them, in the same images."""
        arrangement = Arrangement.of(atoms)
        begun = np.linalg.solve(
            arrangement.vectors(np.array(atoms.cell[:])).T,
            np.array(atoms.positions)[arrangement.order].T,
        ).T
        unwrapped = fractions - np.round(fractions - begun)
        return arrangement.vectors(cell), arrangement.restored(unwrapped @ cell)

    def read_results(self, directory: Path, atoms: Atoms, task: Task) -> DFTResult:
        """Result of the run that the report names."""
        report = json.loads((directory / REPORT_FILE).read_text(encoding="utf-8"))
        corrections = tuple(report["corrections"])
        self._raise_unless_done(report, directory, task)
        folder = directory / report["folder"]
        output = parse_vasprun(folder / "vasprun.xml")
        if list(output.symbols) != [atoms.symbols[i] for i in Arrangement.of(atoms).order]:
            raise CalculationError(
                "unreadable_result",
                f"{folder / 'vasprun.xml'} holds {len(output.symbols)} atoms, not those of "
                f"{atoms.get_chemical_formula()} in the order of POSCAR",
                directory,
                corrections,
            )
        restored = Arrangement.of(atoms).restored
        cell, positions = self._restored(atoms, output.cell, output.fractions)
        forces = restored(output.forces)
        require_finite(
            output.energy,
            forces,
            output.stress,
            n_atoms=len(atoms),
            who="VASP",
            directory=directory,
        )
        ratio = abs(np.linalg.det(cell)) / atoms.get_volume()
        if not VOLUME_RANGE[0] < ratio < VOLUME_RANGE[1]:
            raise CalculationError(
                "collapsed" if ratio < 1.0 else "exploded",
                f"the relaxation by VASP in {directory} changed the volume {ratio:.2f} times; its "
                "start geometry is far from any crystal",
                directory,
                corrections,
            )
        return DFTResult(
            energy=output.energy,
            forces=forces,
            stress=output.stress,
            cell=cell,
            positions=positions,
            converged=bool(report["converged"]),
            n_evaluations=int(report["n_evaluations"]),
            cpu_seconds=0.0,  # the runner fills it in
            engine=self.name,
            reason=str(report["reason"]),
            corrections=corrections,
        )

    def _raise_unless_done(self, report: Mapping[str, Any], directory: Path, task: Task) -> None:
        folder, corrections = directory / report["folder"], tuple(report["corrections"])
        match report["outcome"]:
            case "time_limit":
                # Only a relaxation has something to go on from.
                reason = "time_limit" if task.kind == "relax" else "timeout"
                limit = self.settings.timeout_s
                why = (
                    "by a STOPCAR that somebody put there"
                    if limit is None
                    else f"because timeout_s = {limit:g} s was nearly over; raise it under "
                    "[dft.vasp], or run on more cores"
                )
                sentence = f"VASP was stopped in {folder}, {why}"
                raise CalculationError(reason, sentence, directory, corrections)
            case "settings_changed":
                raise CalculationError(
                    "settings_changed",
                    f"custodian made VASP finish in {folder} by changing what the campaign's "
                    f"energies share ({'; '.join(report['changes'])}), so the result is none",
                    directory,
                    corrections,
                )
            case "failed":
                raise CalculationError(report["reason"], report["message"], directory, corrections)
