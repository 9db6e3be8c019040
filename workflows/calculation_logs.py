"""Everything on the calculations of a structure or of a Firework, as plain JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hullscreen.database.addresses import redact
from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.job_queries import (
    asked_in_span,
    asked_of_structure,
    results_of_structures,
)
from hullscreen.database.launchpad_state import last_launches, last_words, moment_of, trace_of
from hullscreen.database.queue_jobs import QueueJob, QueueJobs
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.output_tails import folders_of, safe_line, tails
from hullscreen.workflows.structure_jobs import (
    LABELS,
    RELAXATIONS,
    Job,
    find_jobs,
    jobs_of_structure,
)

LAUNCH_FIELDS = ("host", "fworker.name", "time_start", "time_end", "launch_dir")
TRACE = "action.stored_data._exception._stacktrace"
LINES_SHOWN = 15


def no_such_structure(store: CampaignStore, index: int) -> InputError:
    """What to say of a number that no structure of the pool has."""
    n_structures = store.count()
    if not n_structures:
        return InputError(
            f"campaign {store.name!r} has no structures yet, so none has the number {index}; see "
            "`hullscreen status`"
        )
    return InputError(
        f"expected a structure of campaign {store.name!r}, numbers 0 to {n_structures - 1}, "
        f"got {index}"
    )


def structure_log(
    store: CampaignStore, index: int, *, n_lines: int = LINES_SHOWN, root: Path | None = None
) -> dict[str, Any]:
    """What happened to a structure.

    Parameters
    ----------
    index
        Place in the pool, as `hullscreen query` shows it.
    n_lines
        Lines of the end of each file.
    root
        Folder of the calculations; by default the one that the campaign's document names.

    Returns
    -------
    ``structure_index, formula_pretty, prototype, nsites, stage``;
    ``relaxed``: outcome, potential and grade of its last relaxation with a potential, or None;
    ``dropped``: why it was left behind, or None;
    ``calculations``: its DFT, see `_calculation`;
    ``n_stored_evaluations``: energies that relaxations of an engine in this process have stored;
    ``jobs``: the Fireworks that computed it or are to, see `_jobs`.

    Raises
    ------
    InputError
        The pool has no such structure.
    """
    fields = ["formula_pretty", "prototype", "nsites", "stage", "final", "dropped"]
    relaxed = ["outcome", "potential", "highest_grade", "energy_per_atom", "evaluations"]
    found = store.search(
        {"index": index}, [*fields, *(f"relaxed.{name}" for name in relaxed)], sort=[]
    )
    if not found:
        raise no_such_structure(store, index)
    structure = found[0]
    results = results_of_structures(store.connection, store.name, [index])
    evaluations = [one for one in results if _is_evaluation(one)]
    shown = {one.key: one for one in results if not _is_evaluation(one)}
    asked = [one.key for one in asked_of_structure(store.connection, store.name, index)]
    keys = [*asked, *([final] if (final := structure.get("final", {}).get("key")) else [])]
    # Others may have computed them.
    shown |= store.dft_results([key for key in keys if key not in shown])
    return {
        "structure_index": index,
        **{name: structure[name] for name in fields[:4]},
        "relaxed": structure.get("relaxed"),
        "dropped": structure.get("dropped"),
        "calculations": _calculations(store, asked, shown, n_lines, root),
        "n_stored_evaluations": len(evaluations),
        "jobs": _jobs(store, jobs_of_structure(store, index)),
    }


def firework_log(
    store: CampaignStore, fw_id: int, *, n_lines: int = LINES_SHOWN, root: Path | None = None
) -> dict[str, Any]:
    """What happened to a Firework and, if it is a DFT job, to each of its calculations.

    Parameters
    ----------
    fw_id
        As FireWorks counts them.
    n_lines, root
        As in `structure_log`.

    Returns
    -------
    ``jobs``: the Firework alone; ``calculations``: as in `structure_log`, with the ends of files
    only of what failed or is not there.

    Raises
    ------
    InputError
        The campaign has no such Firework.
    """
    found = find_jobs(store, fw_id=fw_id)
    if not found:
        raise InputError(
            f"expected a Firework of campaign {store.name!r}, got {fw_id}; `hullscreen status` "
            "tells those that failed"
        )
    (job,) = found
    keys, shown = _results_of(store, job)
    return {
        "jobs": _jobs(store, found),
        "calculations": _calculations(store, keys, shown, n_lines, root, only_failed=True),
    }


def _results_of(store: CampaignStore, job: Job) -> tuple[list[str], dict[str, DFTDocument]]:
    """Keys that a job was asked for, as far as they are known, and results by their keys."""
    if job.task == LABELS:
        span = asked_in_span(store.connection, store.name, job.round, job.first, job.last)
        keys = [one.key for one in span]
        return keys, store.dft_results(keys)
    if job.task == RELAXATIONS:
        indices = store.round(job.round).final_indices[job.first : job.last]
        results = results_of_structures(store.connection, store.name, indices)
        return [], {one.key: one for one in results if one.kind == "relaxation"}
    return [], {}


def _is_evaluation(result: DFTDocument) -> bool:
    """Whether a single point is one of many inside a relaxation."""
    return result.kind == "single_point" and result.purpose == "final"


def _calculations(
    store: CampaignStore,
    asked: Sequence[str],
    results: Mapping[str, DFTDocument],
    n_lines: int,
    root: Path | None,
    *,
    only_failed: bool = False,
) -> list[dict[str, Any]]:
    campaign = store.campaign()
    # A calculator in the worker's process leaves no files.
    engine = campaign["settings"].get("dft", {}).get("engine", "ase")
    root, in_process = root or Path(campaign["directory"]), engine == "ase"
    keys = list(dict.fromkeys([*asked, *results]))
    return [
        {
            **_calculation(root, key, results.get(key), n_lines, only_failed=only_failed),
            "writes_files": not in_process,
        }
        for key in keys
    ]


def _calculation(
    root: Path, key: str, result: DFTDocument | None, n_lines: int, *, only_failed: bool
) -> dict[str, Any]:
    """One calculation: what is stored of it, its folders here, and the ends of their files.

    ``state`` is ``not done`` where nothing is stored: it is to come or under way.
    """
    folders = folders_of(root, key)
    look = not only_failed or result is None or result.state == "failed"
    known: dict[str, Any] = {"key": key, "state": "not done", "folder": str(root / key[:2] / key)}
    if result is not None:
        energy, n_atoms = result.energy, len(result.numbers)
        known |= {
            "state": result.state,
            "structure_index": result.structure_index,
            "kind": result.kind,
            "purpose": result.purpose,
            "campaign": result.campaign,
            "reason": safe_line(result.reason),
            "energy_per_atom": None if energy is None else energy / n_atoms,
            "n_evaluations": result.n_evaluations,
            "cpu_seconds": result.cpu_seconds,
            "corrections": [safe_line(line) for line in result.corrections],
            "last_updated": result.created_at.isoformat(),
        }
    files = [tail for folder in folders if look for tail in tails(folder, n_lines)]
    return {
        **known,
        "is_here": bool(folders),
        "files": [
            {"path": str(tail.path), "size": tail.size, "lines": list(tail.lines)} for tail in files
        ],
    }


def _jobs(store: CampaignStore, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Fireworks with host, worker, job and times of their last launch, and how they failed."""
    found = [
        {"fw_id": job.fw_id, "launches": [job.launch_id] if job.launch_id is not None else []}
        for job in jobs
    ]
    launches = last_launches(store.connection, found, [*LAUNCH_FIELDS, TRACE])
    queued = QueueJobs(store.connection, store.name).of_steps(job.fw_id for job in jobs)
    return [
        {
            **_job(job),
            **_launch(launches.get(job.fw_id, {})),
            "queue_job": queued[job.fw_id].job_id if job.fw_id in queued else None,
            "queue_job_files": _printed(queued.get(job.fw_id)),
        }
        for job in jobs
    ]


def _printed(job: QueueJob | None) -> list[str]:
    """Files with what a job in the queue printed, as far as they can be seen from here."""
    if job is None or not job.folder:
        return []
    number = re.compile(rf"\D{job.job_id}\b|[eo]{job.job_id}$")
    return sorted(str(path) for path in Path(job.folder).glob("*") if number.search(path.name))


def _job(job: Job) -> dict[str, Any]:
    return {
        "fw_id": job.fw_id,
        "name": job.name,
        "category": job.category,
        "state": job.state,
        "round": job.round,
    }


def _launch(launch: Mapping[str, Any]) -> dict[str, Any]:
    trace = redact(trace_of(launch))
    began, ended = moment_of(launch.get("time_start")), moment_of(launch.get("time_end"))
    return {
        "host": launch.get("host"),
        "worker": (launch.get("fworker") or {}).get("name"),
        "folder": launch.get("launch_dir"),
        "began_at": began.isoformat() if began else None,
        "ended_at": ended.isoformat() if ended else None,
        "reason": safe_line(last_words(trace)[1]),
        "trace": [safe_line(line) for line in trace.splitlines()],
    }
