"""Runs of VASP under custodian, and what it changed to bring them to an end.

Handlers that are left out change energies, or find fault with settings that are right here:
LargeSigmaHandler (SIGMA), IncorrectSmearingHandler (ISMEAR), KspacingMetalHandler (the grid),
AliasingErrorHandler (the FFT grid), DriftErrorHandler (gives up when PREC is Accurate).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from custodian.custodian import Custodian
from custodian.vasp import handlers as library
from custodian.vasp.io import load_vasprun
from custodian.vasp.jobs import VaspJob
from custodian.vasp.validators import VaspFilesValidator, VasprunXMLValidator

from hullscreen.dft_adapters.runner import GUARDIAN
from hullscreen.dft_adapters.vasp_inputs import (
    INCAR_RELAX,
    INCAR_STATIC,
    INPUTS,
    POTCAR_SPEC,
    changed_settings,
)
from hullscreen.dft_adapters.vasp_runs import ERRORS, OUTPUT, Job, Report, steps_in

MAX_ERRORS = 5
STALE = ("OSZICAR", "OUTCAR", "vasprun.xml", "STOPCAR")
# VASP's words in OUTCAR: "soft stop" after an ionic step, "hard stop" after an electronic one.
STOPPED = "stop encountered!"
ENDED_BY_ITSELF = "General timing and accounting"
# custodian sleeps before it looks whether VASP has ended: a small part of any calculation.
POLL_S = 0.05
# VASP is asked to stop so long before the limit, or three of its longest steps before.
LARGEST_BUFFER_S = 300.0
BUFFER_OF_LIMIT = 0.1


@dataclass(frozen=True)
class Run:
    """One run of VASP that custodian was content with.

    Attributes
    ----------
    folder
        Where it was.
    stopped
        It was asked to stop because time ran out.
    changes
        Settings that custodian changed and that change energies.
    """

    folder: Path
    stopped: bool
    changes: tuple[str, ...]


class GuardedJob(VaspJob):
    """A run of VASP that begins with a clean folder and can be asked how it ended."""

    def run(self, directory: str = "./") -> Any:
        """Start VASP, without what an earlier attempt has left.

        Monitors would take those files for VASP's first words, and find the failure that was just
        mended; handlers have put them aside.
        """
        for name in STALE:
            Path(directory, name).unlink(missing_ok=True)
        return super().run(directory=directory)  # type: ignore[no-untyped-call]

    @property
    def returncode(self) -> int:
        """Exit status of the last attempt; 0 if there was none."""
        process = getattr(self, "_vasp_process", None)
        return int(process.returncode or 0) if process is not None else 0


class UnconvergedElectrons(library.UnconvergedErrorHandler):
    """The handler of unconverged runs, for electrons only.

    A relaxation that runs out of steps is reported, not continued: ``max_steps`` is the user's.
    """

    def check(self, directory: str = "./") -> bool:
        """Whether the electrons of the last ionic step did not converge."""
        try:
            run = load_vasprun(str(Path(directory, self.output_filename)))
            converged = bool(run.converged_electronic)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError):
            return False  # a file that is not whole is a validator's business
        return not converged


def handlers(job: Job, *, relaxes: bool, left_s: float | None) -> list[Any]:
    """Handlers of custodian for one run of VASP.

    Monitors look while VASP runs, and all of them once it has ended.
    """
    chosen = [
        library.VaspErrorHandler(output_filename=OUTPUT),
        library.StdErrHandler(output_filename=ERRORS),
        library.MeshSymmetryErrorHandler(output_filename=OUTPUT),
        UnconvergedElectrons(),
        library.NonConvergingErrorHandler(),
        library.PositiveEnergyErrorHandler(),
        library.FrozenJobErrorHandler(output_filename=OUTPUT, timeout=job.frozen_after_s),
    ]
    if relaxes:
        chosen.append(library.PotimErrorHandler())
    if left_s is not None:
        # It would take the time it began from here.
        os.environ.pop("CUSTODIAN_WALLTIME_START", None)
        buffer_s = min(LARGEST_BUFFER_S, BUFFER_OF_LIMIT * left_s)
        chosen.append(
            library.WalltimeHandler(
                wall_time=left_s, buffer_time=buffer_s, electronic_step_stop=not relaxes
            )
        )
    return chosen


class Runner:
    """Runs of VASP in one calculation's folder, and what they add up to."""

    def __init__(self, directory: Path, job: Job) -> None:
        self.directory = directory
        self.job = job
        self.report = Report()
        self.began = time.monotonic()
        self.folder = directory
        self.returncode = 0
        self.last_handler = ""

    def run(self, kind: str, number: int, poscar: Path, *, steps: int = 0) -> Run:
        """One run of VASP to its end, mended by custodian.

        Parameters
        ----------
        kind, number
            ``"relax"`` or ``"static"``, and which of them.
        poscar
            Geometry it begins with.
        steps
            Most ionic steps of a relaxation.

        Raises
        ------
        CustodianError
            custodian could not mend it.
        """
        inputs = self.directory / INPUTS
        folder = self.directory / f"{kind}.{number}"
        folder.mkdir()
        incar = (inputs / (INCAR_RELAX if kind == "relax" else INCAR_STATIC)).read_text("utf-8")
        if kind == "relax":
            incar = re.sub(r"(?m)^(\s*NSW\s*=).*$", rf"\1 {steps}", incar)
        (folder / "INCAR").write_text(incar, encoding="utf-8")
        shutil.copyfile(poscar, folder / "POSCAR")
        shutil.copyfile(inputs / "KPOINTS", folder / "KPOINTS")
        for name in ("POTCAR", POTCAR_SPEC):
            if (inputs / name).is_file():
                # Large, and nobody changes it.
                (folder / name).symlink_to(Path("..") / INPUTS / name)
        left_s = None
        if self.job.timeout_s is not None:
            left_s = max(1.0, self.job.timeout_s - (time.monotonic() - self.began))
        self.folder = folder
        vasp = self._job()
        keeper = self._custodian(vasp, folder, relaxes=kind == "relax", left_s=left_s)
        try:
            keeper.run()  # type: ignore[no-untyped-call]
        finally:
            self.returncode = vasp.returncode
            corrections = [c for entry in keeper.run_log for c in entry["corrections"]]
            self.last_handler = type(corrections[-1]["handler"]).__name__ if corrections else ""
            # Also of a run that could not be mended: they were paid for.
            self.report.n_evaluations += steps_in(folder)
            self.report.corrections += corrections_in(keeper.run_log)
        late = any(
            isinstance(entry["handler"], library.WalltimeHandler) for entry in keeper.run_log
        )
        return Run(
            folder,
            was_stopped(folder, late=late),
            tuple(self._changes(folder, incar, kind, poscar)),
        )

    def _job(self) -> GuardedJob:
        # custodian starts VASP in a session of its own, out of reach of the guardian above this
        # process; another one goes with it.
        guarded = [sys.executable, "-I", "-S", str(GUARDIAN), str(os.getpid()), *self.job.command]
        return GuardedJob(
            guarded, output_file=OUTPUT, stderr_file=ERRORS, backup=False, auto_gamma=False
        )

    def _custodian(
        self, vasp: VaspJob, folder: Path, *, relaxes: bool, left_s: float | None
    ) -> Custodian:
        every_s = self.job.monitor_every_s
        if left_s is not None:
            # The limit must not pass between two looks.
            every_s = min(every_s, 0.5 * min(LARGEST_BUFFER_S, BUFFER_OF_LIMIT * left_s))
        return Custodian(
            handlers(self.job, relaxes=relaxes, left_s=left_s),
            [vasp],
            validators=[
                VaspFilesValidator(),
                VasprunXMLValidator(output_file=OUTPUT, stderr_file=ERRORS),
            ],
            max_errors=MAX_ERRORS,
            polling_time_step=POLL_S,
            monitor_freq=max(1, round(every_s / POLL_S)),
            gzipped_output=False,
            checkpoint=False,
            # A handler that stumbles itself must not end the others.
            skip_over_errors=True,
            directory=str(folder),
        )

    def _changes(self, folder: Path, incar: str, kind: str, poscar: Path) -> list[str]:
        """Settings of the last attempt of a run that are not ours and change energies."""
        changes = changed_settings(incar, (folder / "INCAR").read_text(encoding="utf-8"))
        grid = (self.directory / INPUTS / "KPOINTS").read_text(encoding="utf-8")
        now = (folder / "KPOINTS").read_text(encoding="utf-8")
        if _grid(now) != _grid(grid):
            changes.append(f"KPOINTS was {_grid(grid)}, became {_grid(now)}")
        if kind == "static" and not _same_geometry(folder / "POSCAR", poscar):
            changes.append("POSCAR holds another geometry")
        return changes


def was_stopped(folder: Path, *, late: bool) -> bool:
    """Whether a run stopped for a STOPCAR, whoever wrote it.

    Electrons that were stopped took fewer steps than NELM, which looks like convergence. A run that
    was ``late`` may have come to its own end nevertheless.
    """
    outcar = folder / "OUTCAR"
    text = outcar.read_text(encoding="utf-8", errors="replace") if outcar.is_file() else ""
    return STOPPED in text or (late and ENDED_BY_ITSELF not in text)


def _grid(kpoints: str) -> str:
    """Style, divisions and shift of a KPOINTS file, however it is laid out."""
    lines = [line.split() for line in kpoints.splitlines()[2:5]]
    style = lines[0][0][0].upper() if lines and lines[0] else "?"
    shift = " ".join(f"{float(x):g}" for x in (lines[2] if len(lines) > 2 else ["0"] * 3))
    return f"{style} {' '.join(lines[1])} {shift}"


def _same_geometry(path: Path, other: Path) -> bool:
    from pymatgen.io.vasp.inputs import Poscar

    one, two = (Poscar.from_file(p, check_for_potcar=False).structure for p in (path, other))
    # custodian writes 6 to 16 digits; energies do not notice the seventh.
    return bool(
        np.allclose(one.lattice.matrix, two.lattice.matrix, atol=1e-5)
        and np.allclose(one.frac_coords, two.frac_coords, atol=1e-5)
    )


def corrections_in(run_log: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Sentences for what custodian did: "brmix: IMIX = 1"."""
    sentences = []
    for correction in (c for entry in run_log for c in entry["corrections"]):
        if not correction["actions"]:
            continue
        what, actions = ", ".join(correction["errors"]), correction["actions"]
        telling = [a for a in actions if "_file_delete" not in a["action"]] or actions
        sentences.append(f"{what}: {'; '.join(map(_action, telling))}")
    return tuple(sentences)


def _action(action: Mapping[str, Any]) -> str:
    """One of custodian's actions in words."""
    done = action["action"]
    if "dict" in action:
        if action["dict"] == "POSCAR":
            return "another POSCAR"
        prefix = "" if action["dict"] == "INCAR" else f"{action['dict']} "
        parts = [f"{prefix}{tag} = {value}" for tag, value in done.get("_set", {}).items()]
        parts += [f"{prefix}{tag} removed" for tag in done.get("_unset", {})]
        return ", ".join(parts)
    if "_file_copy" in done:
        return f"{action['file']} as {done['_file_copy']['dest']}"
    return f"{action['file']} removed" if "_file_delete" in done else str(action["file"])
