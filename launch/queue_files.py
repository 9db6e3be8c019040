"""FireWorks' files for jobs in a queue: one folder for each kind of steps, and one job script."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from hullscreen.launch.atomic_files import write_atomically
from hullscreen.launch.launchpad_file import FIRST_LINE, write_launchpad_file
from hullscreen.launch.worker_processes import FWORKER_FILE
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.dft_jobs import RUN_VARIABLE
from hullscreen.workflows.flows import DFT, RELAX, TRAIN
from hullscreen.workflows.launch_settings import TEMPLATE_SIGN, Launch, QueueJobs
from hullscreen.workflows.settings_tree import Settings

FOLDER = "queue"
QADAPTER_FILE = "my_qadapter.yaml"
TEMPLATE_FILE = "job_template.txt"
# FireWorks' names of the queues.
FIREWORKS_NAMES = {"slurm": "SLURM", "pbs": "PBS", "sge": "SGE"}
# What begins a line of options in a job script.
OPTION_MARKS = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$"}
# PBS and SGE refuse names that are longer.
LONGEST_NAME = 15
# Code compiled for one type of processor must not meet another's: numba keeps it in one folder.
NODE_TYPE = (
    "$(uname -m)$(sed -n 's/^model name[^:]*:/-/p' /proc/cpuinfo | head -n 1 | "
    "tr -cs '[:alnum:]' '-')"
)
# A line of the user's that fails ends the job with its status; what functions try that it calls,
# such as those of `module`, is their own affair.
SETUP_BEGINS = (
    'trap \'failed=$?; echo "a line of setup under [launch] failed: status $failed" >&2; '
    "exit $failed' ERR"
)
SETUP_ENDS = "trap - ERR"
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Role:
    """What the jobs of one folder do.

    Attributes
    ----------
    category
        Kind of steps, which names the folder.
    takes
        Kinds of steps that its workers take: its own, and perhaps another's.
    shape
        Number, size and time of the jobs.
    processes
        Workers in one job.
    """

    category: str
    takes: tuple[str, ...]
    shape: QueueJobs
    processes: int


def roles_of(launch: Launch) -> list[Role]:
    """Folders of jobs that the settings ask for."""
    # Fits and decisions must not be left to nobody.
    relaxing = (RELAX,) if launch.train.jobs else (RELAX, TRAIN)
    roles = [
        Role(RELAX, relaxing, launch.relax, launch.relax.cores),
        Role(TRAIN, (TRAIN,), launch.train, launch.train.cores),
        # The engine's own command uses the cores.
        Role(DFT, (DFT,), launch.dft, 1),
    ]
    return [role for role in roles if role.shape.jobs > 0]


def left_to_others(launch: Launch) -> list[str]:
    """Kinds of steps that no job takes: they wait for workers that somebody starts."""
    taken = {category for role in roles_of(launch) for category in role.takes}
    return [category for category in (RELAX, TRAIN, DFT) if category not in taken]


def write_queue_files(
    root: Path, settings: Settings, uri: str, queue: str, run_id: str
) -> dict[str, Path]:
    """Write the files of all kinds of steps; those whose first line a user removed are kept.

    Parameters
    ----------
    root
        Folder in which each kind has one.
    uri
        Address of the MongoDB server, which only ``my_launchpad.yaml``, of mode 0600, holds.
    queue
        A key of `FIREWORKS_NAMES`.
    run_id
        What the workers call this run, by which repeated crashes of one calculation are noticed.

    Returns
    -------
    Folder of each category.

    Raises
    ------
    InputError
        A job script cannot name the folder.
    """
    if not str(root.absolute()).isprintable() or TEMPLATE_SIGN in str(root.absolute()):
        raise InputError(
            f"{str(root.absolute())!r} cannot stand in a job script; expected a campaign directory "
            f"whose name has no control characters and no '{TEMPLATE_SIGN}': move it"
        )
    folders = {}
    database = dataclasses.replace(settings.database, uri=uri, uri_file="")
    for role in roles_of(settings.launch):
        folder = folders[role.category] = root.absolute() / role.category
        folder.mkdir(parents=True, exist_ok=True)
        write_launchpad_file(folder, database)
        write_atomically(folder / TEMPLATE_FILE, job_template(queue))
        _write_yaml(folder / FWORKER_FILE, worker_keys(role, settings.campaign.name))
        keys = adapter_keys(folder, role, settings, queue, run_id)
        _write_yaml(folder / QADAPTER_FILE, keys)
    return folders


def job_template(queue: str) -> str:
    """FireWorks' template of a job script, with room for more options of the queue."""
    path = CommonAdapter._get_default_template_file(FIREWORKS_NAMES[queue])  # noqa: SLF001
    text = Path(path).read_text(encoding="utf-8")
    # Names of folders may hold blanks.
    text = text.replace("cd $${launch_dir}", 'cd "$${launch_dir}"')
    # The queue's own names of what a job prints have its number.
    text = re.sub(r"(?m)^#\S+ -[oe] FW_job\.\w+\n", "", text)
    return re.sub(r"\n+\$\$\{pre_rocket\}", "\n$${directives}\n\n$${pre_rocket}", text)


def worker_keys(role: Role, campaign: str) -> dict[str, Any]:
    """``my_fworker.yaml``: which Fireworks the jobs take."""
    category = role.takes[0] if len(role.takes) == 1 else list(role.takes)
    return {
        "name": f"{campaign} {role.category}",
        "category": category,
        # FireWorks reads it as JSON.
        "query": json.dumps({"spec.campaign": campaign}),
    }


def adapter_keys(
    folder: Path, role: Role, settings: Settings, queue: str, run_id: str
) -> dict[str, Any]:
    """``my_qadapter.yaml``: the job as FireWorks' CommonAdapter describes it."""
    launch, shape = settings.launch, role.shape
    command = [
        sys.executable, "-m", "hullscreen.launch", "worker", str(folder),
        "--processes", str(role.processes), "--stop-after", str(shape.walltime_s),
        "--idle", f"{launch.idle_s:g}",
    ]  # fmt: skip
    keys: dict[str, Any] = {
        "_fw_name": "CommonAdapter",
        "_fw_q_type": FIREWORKS_NAMES[queue],
        "_fw_template_file": str(folder / TEMPLATE_FILE),
        "job_name": job_name(settings.campaign.name, role.category, queue),
        "queue": launch.partition,
        "account": launch.account,
        **_size_keys(queue, role),
        "directives": "\n".join(_directives(queue, launch, shape)),
        "pre_rocket": "\n".join(_before_the_worker(launch, run_id)),
        # The queue's signals reach the worker, which then hands its steps back.
        "rocket_launch": f"exec {shlex.join(command)}",
    }
    return {key: value for key, value in keys.items() if value != ""}


def job_name(campaign: str, category: str, queue: str) -> str:
    """Name of a job: the campaign's, as much of it as the queue takes, then the kind of steps.

    Examples
    --------
    >>> job_name("copper-and-palladium", "relax", "pbs")
    'copper-an-relax'
    """
    if queue != "slurm":
        # PBS and SGE refuse names that begin with a digit.
        campaign = campaign if campaign[0].isalpha() else f"c{campaign}"
        campaign = campaign[: LONGEST_NAME - len(category) - 1]
    return f"{campaign}-{category}"


def _size_keys(queue: str, role: Role) -> dict[str, Any]:
    """Cores, memory and wall time where FireWorks' template has places for them."""
    shape = role.shape
    if queue == "slurm":
        # `srun` and `mpirun` start as many processes as there are tasks.
        tasks = shape.cores if role.category == DFT else 1
        return {
            "nodes": 1,
            "ntasks": tasks,
            "cpus_per_task": shape.cores // tasks,
            "mem": shape.memory,
            "walltime": shape.walltime,
        }
    if queue == "pbs":
        return {"nnodes": 1, "ppnode": shape.cores, "walltime": shape.walltime}
    return {}


def _directives(queue: str, launch: Launch, shape: QueueJobs) -> list[str]:
    """Options of the queue that FireWorks' template has no place for, then the user's own."""
    options: list[str] = []
    if queue == "pbs" and shape.memory:
        options.append(f"-l mem={shape.memory.lower()}b")
    if queue == "sge":
        options += ["-S /bin/bash", "-cwd", f"-l h_rt={shape.walltime}"]
        if shape.memory:
            # SGE counts memory by core.
            kibibytes = int(shape.memory[:-1]) * 1024 ** "KMGT".index(shape.memory[-1])
            options.append(f"-l h_vmem={-(-kibibytes // shape.cores)}K")
        if shape.cores > 1 and not any("-pe " in line for line in shape.extra):
            options.append(f"-pe {launch.parallel_environment} {shape.cores}")
    lines = [f"{OPTION_MARKS[queue]} {option}" for option in options]
    return lines + [
        f"{OPTION_MARKS[queue]} {line}" if line.startswith("-") else line for line in shape.extra
    ]


def _before_the_worker(launch: Launch, run_id: str) -> list[str]:
    """Lines of the job script that prepare its environment; the user's come last."""
    return [
        *(f"export {name}=1" for name in ONE_THREAD),
        f"node_type={NODE_TYPE}",
        'export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$HOME/.cache/hullscreen/numba/$node_type}"',
        f"export {RUN_VARIABLE}={run_id}",
        *([SETUP_BEGINS, *launch.setup, SETUP_ENDS] if launch.setup else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in launch.environment.items()),
    ]


def _write_yaml(path: Path, keys: Mapping[str, Any]) -> None:
    """Write one of FireWorks' files unless the user has one of their own there."""
    first = FIRST_LINE.encode()
    if path.exists() and not path.read_bytes().startswith(first):
        return
    shown = {
        key: (LiteralScalarString if "\n" in value else DoubleQuotedScalarString)(value)
        if isinstance(value, str)
        else value
        for key, value in keys.items()
    }
    yaml = YAML()
    yaml.width = 10_000
    stream = StringIO()
    yaml.dump(shown, stream)
    write_atomically(path, f"{FIRST_LINE}\n{stream.getvalue()}")


def job_script(folder: Path, own: Path) -> str:
    """The script of a job with the launch files of a folder, which runs in ``own``."""
    # The template names it in double quotes, where a shell reads these four.
    in_quotes = re.sub(r'([\\"$`])', r"\\\1", str(own))
    return str(adapter_of(folder).get_script_str(in_quotes))


def adapter_of(folder: Path) -> CommonAdapter:
    """FireWorks' queue adapter as the files of a folder describe it."""
    keys = YAML(typ="safe").load((folder / QADAPTER_FILE).read_text(encoding="utf-8"))
    return CommonAdapter.from_dict(keys)
