"""The process that runs VASP: ``python -m hullscreen.dft_adapters.vasp_job`` in a folder.

Each run of VASP has a folder of its own with a copy of ``inputs/``; custodian's handlers change
what is in there, never the inputs. A relaxation ends with a static run in the basis of its final
cell, as all energies on one hull must. What came of it all stands in ``report.json``; without one,
the end of the printed text says why (`hullscreen.dft_adapters.vasp_failures`).
"""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hullscreen.dft_adapters.atomic_json import write_json
from hullscreen.dft_adapters.engine import CalculationError, require_finite
from hullscreen.dft_adapters.vasp_failures import ENDED, GAVE_UP
from hullscreen.dft_adapters.vasp_inputs import INPUTS
from hullscreen.dft_adapters.vasp_output import VaspOutput, parse_vasprun, sound_contcar
from hullscreen.dft_adapters.vasp_runs import (
    ERRORS,
    OUTPUT,
    REPORT_FILE,
    Report,
    read_job,
    run_folders,
)

if TYPE_CHECKING:
    from custodian.custodian import CustodianError

    from hullscreen.dft_adapters.vasp_custodian import Run, Runner

# A relaxation's basis is that of the cell it began with. It begins again where the stress in the
# basis of its last cell is above 1 GPa (0.25 meV/atom for a bulk modulus of 150 GPa and 12 Å³), or
# a force above twice the tolerance.
STRESS_OF_NEW_BASIS = 0.00624  # eV/Å³
FORCES_OF_NEW_BASIS = 2.0
MAX_ROUNDS = 3
TAIL_LINES = 60


def single_point(runner: Runner) -> Report:
    """One static run."""
    run = runner.run("static", 1, runner.directory / INPUTS / "POSCAR")
    return _ended(runner, run)


def relaxation(runner: Runner) -> Report:
    """Relaxation and static run, again in the new basis where it differs much."""
    job, report = runner.job, runner.report
    start = poscar = runner.directory / INPUTS / "POSCAR"
    steps = 0
    for number in range(1, MAX_ROUNDS + 1):
        run = runner.run("relax", number, poscar, steps=max(1, job.max_steps - steps))
        if run.stopped:
            return _ended(runner, run)
        output = _finite(run)
        steps += output.n_ionic_steps
        poscar = run.folder / "CONTCAR"
        if sound_contcar(poscar, start) is None:
            raise CalculationError(
                "collapsed",
                f"the relaxation by VASP ended in {run.folder} with a CONTCAR that is cut off or "
                "no crystal any more; its start geometry is far from any crystal",
                run.folder,
            )
        relaxed = not run.changes and _within(output, job.force_tolerance, job.stress_tolerance)
        out_of_steps = steps >= job.max_steps
        if not relaxed and not run.changes and not out_of_steps and number < MAX_ROUNDS:
            continue
        last = runner.run("static", number, poscar)
        report = _ended(runner, last)
        if report.outcome != "done":
            return report
        settled = _within(
            _finite(last),
            FORCES_OF_NEW_BASIS * job.force_tolerance,
            max(job.stress_tolerance, STRESS_OF_NEW_BASIS),
        )
        # With another grid or smearing it came to another minimum; ours says whether it is near.
        report.converged = relaxed or (settled and bool(run.changes))
        report.reason = "" if report.converged else "step_limit" if out_of_steps else "stalled"
        if settled or out_of_steps:
            break
    return report


def _finite(run: Run) -> VaspOutput:
    """The end of a run; `CalculationError` if its numbers are none."""
    output = parse_vasprun(run.folder / "vasprun.xml")
    require_finite(
        output.energy,
        output.forces,
        output.stress,
        n_atoms=len(output.symbols),
        who="VASP",
        directory=run.folder,
    )
    return output


def _within(output: VaspOutput, force: float, stress: float) -> bool:
    """Whether forces (eV/Å) and stress (eV/Å³) are within these."""
    largest = np.linalg.norm(output.forces, axis=1).max()
    return bool(largest <= force and np.abs(output.stress).max() <= stress)


def _ended(runner: Runner, run: Run) -> Report:
    report = runner.report
    report.folder, report.changes = run.folder.name, run.changes
    report.outcome = "time_limit" if run.stopped else "settings_changed" if run.changes else "done"
    return report


def tell(folder: Path) -> None:
    """Print the end of what VASP printed in a run."""
    for name in (OUTPUT, ERRORS):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            print(f"--- end of {folder.name}/{name}", *lines[-TAIL_LINES:], sep="\n")  # noqa: T201


def gave_up(runner: Runner, error: CustodianError) -> None:
    """Print why custodian could not mend the last run, and how that ended."""
    culprit = getattr(error, "handler", None) or getattr(error, "validator", None) or error
    lines = [f"{GAVE_UP}: {type(culprit).__name__} {runner.last_handler}: {error}"]
    lines += [f"it had tried: {correction}" for correction in runner.report.corrections]
    if runner.returncode:
        lines.append(f"{ENDED} {runner.returncode}")
    print(*lines, sep="\n")  # noqa: T201
    tell(runner.folder)


def main(directory: Path) -> int:
    """Do the job in ``directory``; 0 if there is a report."""
    # custodian takes two seconds to import: not in the adapter's process.
    from custodian.custodian import CustodianError

    from hullscreen.dft_adapters.vasp_custodian import Runner

    job = read_job(directory)
    for folder in run_folders(directory):
        shutil.rmtree(folder)
    runner = Runner(directory, job)
    try:
        with warnings.catch_warnings():
            # Handlers warn of what they mend; the corrections say it better.
            warnings.simplefilter("ignore")
            report = relaxation(runner) if job.relax else single_point(runner)
    except CustodianError as error:
        gave_up(runner, error)
        return 1
    except CalculationError as error:
        report = runner.report
        report.outcome, report.reason, report.message = "failed", error.reason, str(error)
    write_json(directory / REPORT_FILE, asdict(report))
    return 0


if __name__ == "__main__":
    # custodian logs what it finds; the failures table must see only what it could not mend.
    logging.disable(logging.CRITICAL)
    sys.exit(main(Path.cwd()))
