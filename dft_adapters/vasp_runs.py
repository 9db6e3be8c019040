"""The folders of a VASP calculation, and what its two processes tell each other there.

``inputs/`` holds what the adapter wrote, ``relax.1``, ``static.1``, … one run of VASP each, and
``report.json`` what came of them.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from hullscreen.dft_adapters.atomic_json import write_json
from hullscreen.dft_adapters.vasp_inputs import INPUTS
from hullscreen.dft_adapters.vasp_output import n_steps_of

JOB_FILE = "job.json"
REPORT_FILE = "report.json"
OUTPUT = "vasp.out"
ERRORS = "std_err.txt"


@dataclass(frozen=True)
class Job:
    """What the adapter asks for, in ``inputs/job.json``.

    Attributes
    ----------
    command
        VASP and its launcher.
    relax
        Whether cell and positions are relaxed before the static run.
    force_tolerance, stress_tolerance, max_steps
        Of a relaxation, eV/Å, eV/Å³, and ionic steps.
    timeout_s
        Wall time of all runs together; None: no limit.
    frozen_after_s, monitor_every_s
        See `hullscreen.dft_adapters.vasp_settings.VaspSettings`.
    """

    command: tuple[str, ...]
    relax: bool
    force_tolerance: float
    stress_tolerance: float
    max_steps: int
    timeout_s: float | None
    frozen_after_s: float
    monitor_every_s: float


@dataclass
class Report:
    """What ``report.json`` holds.

    Attributes
    ----------
    outcome
        ``"done"``, ``"time_limit"``, ``"settings_changed"``, or ``"failed"`` with a reason.
    converged, reason
        Of a relaxation, as in `hullscreen.dft_adapters.engine.DFTResult`.
    message
        Sentence to the reason of what failed.
    folder
        Of the run that has the result.
    n_evaluations
        Ionic steps of all runs, those that were started anew included.
    corrections
        What custodian changed: "brmix: IMIX = 1".
    changes
        Settings that custodian changed in that run and that change energies.
    """

    outcome: str = "done"
    converged: bool = True
    reason: str = ""
    message: str = ""
    folder: str = ""
    n_evaluations: int = 0
    corrections: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def write_job(directory: Path, job: Job) -> None:
    """Leave a job for this process."""
    write_json(directory / INPUTS / JOB_FILE, asdict(job))


def read_job(directory: Path) -> Job:
    """The job in a calculation's folder."""
    values = json.loads((directory / INPUTS / JOB_FILE).read_text(encoding="utf-8"))
    return Job(**{**values, "command": tuple(values["command"])})


def run_folders(directory: Path, kind: str = "*") -> list[Path]:
    """Folders of runs in a calculation's folder, the latest last."""
    found = [p for p in directory.glob(f"{kind}.*") if re.fullmatch(r"(relax|static)\.\d+", p.name)]
    return sorted(found, key=lambda path: int(path.suffix[1:]))


def steps_in(folder: Path) -> int:
    """Ionic steps computed in a run's folder, in the attempts that custodian put aside as well."""
    texts = [_put_aside(path) for path in folder.glob("error.*.tar.gz")]
    if (folder / "OSZICAR").is_file():
        texts.append((folder / "OSZICAR").read_text(encoding="utf-8", errors="replace"))
    return sum(n_steps_of(text) for text in texts)


def _put_aside(path: Path) -> str:
    """OSZICAR of an attempt that custodian packed; empty if it was killed while it did."""
    try:
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                stream = archive.extractfile(member) if member.name.endswith("OSZICAR") else None
                if stream is not None:
                    return stream.read().decode("utf-8", errors="replace")
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        return ""
    return ""
