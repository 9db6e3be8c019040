"""The tables ``[database]`` and ``[launch]``: where a campaign's data lies, and who works on it.

Neither decides about results: both may change while a campaign goes on.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, StrictStr, field_validator, model_validator
from pydantic.dataclasses import dataclass

from hullscreen.workflows.setting_fields import KNOWN_KEYS, setting

# FireWorks drops every line of a job script that holds this, its sign for what is filled in.
TEMPLATE_SIGN = "$$"
SECRET_VARIABLES = ("HULLSCREEN_DB_URI", "HULLSCREEN_WORKER_DB_URI")
# Control characters, and what separates lines or paragraphs.
NOT_IN_LINES = ("Cc", "Zl", "Zp")
# A worker takes some seconds to start on a busy node, and stops before its time ends.
SHORTEST_WALLTIME_S = 60
WORD = r"^[\w.@:+-]*$"


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Database:
    """The MongoDB server; without an address hullscreen starts one in this directory."""

    uri: str = setting(
        "",
        "Address, such as 'mongodb://user@host:27017/?tls=true'; empty: a server of its own.",
        pattern=r"^($|mongodb(\+srv)?://.+)",
    )
    uri_file: str = setting(
        "",
        "File whose first line is the address, for addresses with a password; relative to this "
        "directory, and readable by its owner alone.",
    )
    name: str = setting(
        "hullscreen",
        "Name of the database on the server; campaigns in one database share DFT results.",
        pattern=r"^[A-Za-z0-9_-]{1,63}$",
    )

    @model_validator(mode="after")
    def _one_address(self) -> "Database":
        if "://" in self.uri_file:
            raise ValueError("uri_file is an address; expected the name of a file that holds it")
        if self.uri and self.uri_file:
            raise ValueError("uri and uri_file are both given; expected one of them")
        return self


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class QueueJobs:
    """Jobs that `hullscreen launch` keeps in the queue for one kind of steps."""

    jobs: int = setting(
        4, "Jobs in the queue, at most, and no more than there is work for; 0: none.", ge=0
    )
    cores: int = setting(1, "Cores of a job.", ge=1)
    walltime: str = setting(
        "24:00:00",
        "Wall time of a job as HH:MM:SS, no longer than its partition allows; workers stop a "
        "little earlier and hand back what they hold.",
    )
    memory: str = setting(
        "",
        "Memory of a job as a number and K, M, G or T, such as '4G'; empty: what the queue gives.",
        pattern=r"^([1-9]\d*[KMGT])?$",
    )
    extra: tuple[StrictStr, ...] = setting(
        (),
        "Further options of the queue, such as '--qos=long', or whole lines for the head of the "
        "job script.",
    )

    @property
    def walltime_s(self) -> int:
        """Wall time of a job, s."""
        return _seconds(self.walltime)

    @field_validator("walltime")
    @classmethod
    def _enough_time(cls, walltime: str) -> str:
        if not re.fullmatch(r"\d{2,4}:[0-5]\d:[0-5]\d", walltime):
            raise ValueError(f"{walltime!r} is no wall time; expected HH:MM:SS, such as 48:00:00")
        if _seconds(walltime) < SHORTEST_WALLTIME_S:
            raise ValueError(
                f"in {walltime} a worker hardly starts; expected at least "
                f"{SHORTEST_WALLTIME_S // 60} min, better hours"
            )
        return walltime

    @field_validator("extra")
    @classmethod
    def _extra_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        for line in _single_lines(lines):
            if not line.startswith(("-", "#")):
                raise ValueError(
                    f"{line!r} is no option of a queue; expected one such as '--qos=long' or "
                    "'-q long', or a whole line such as '#SBATCH --qos=long'"
                )
        return lines


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class RelaxJobs(QueueJobs):
    """Jobs in the queue that relax with the potential, one process per core."""


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class TrainJobs(QueueJobs):
    """Jobs in the queue that fit and decide; with ``jobs = 0`` those that relax do it as well."""

    jobs: int = setting(
        1, "Jobs in the queue, at most, and no more than there is work for; 0: none.", ge=0
    )


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class DFTJobs(QueueJobs):
    """Jobs in the queue that run DFT, one engine each: its command, with mpirun, uses the cores."""


@dataclass(frozen=True, kw_only=True, config=KNOWN_KEYS)
class Launch:
    """Who works: processes of this machine (`hullscreen run`) or a queue (`hullscreen launch`)."""

    workers: int = setting(0, "Processes that `hullscreen run` starts; 0: one per core.", ge=0)
    dft_workers: int = setting(
        0,
        "Further processes, for DFT alone, which the others then leave to them; 0: as many as "
        "there are cores for, if a DFT calculation takes several, else all do everything.",
        ge=0,
    )
    queue: Literal["slurm", "pbs", "sge", ""] = setting(
        "", "Queue of `hullscreen launch`: 'slurm', 'pbs' or 'sge'; empty: `--queue` says it."
    )
    partition: str = setting(
        "",
        "Partition (Slurm) or queue (PBS, SGE) that jobs go to; empty: the default one.",
        pattern=WORD,
    )
    account: str = setting(
        "", "Account that jobs are charged to; empty: the default one.", pattern=WORD
    )
    parallel_environment: str = setting(
        "smp",
        "SGE's parallel environment for jobs of several cores of one node; `qconf -spl` lists "
        "those there are.",
        pattern=r"^[\w.@:+-]+$",
    )
    setup: tuple[StrictStr, ...] = setting(
        (),
        "Lines of the job script before the worker, such as 'module load quantum-espresso'; one "
        "that fails ends the job.",
    )
    environment: dict[str, str] = setting(
        {},
        "Variables of the jobs, taken word for word, such as {OMP_NUM_THREADS = '2'}; no secrets, "
        "since job scripts can be read by others.",
    )
    heartbeat_s: float = setting(
        10.0,
        "Time in s between the signs of life of a worker, and between looks at the queue; a step "
        "whose worker was silent for three is taken up by others.",
        gt=0,
        le=3600,
    )
    idle_s: float = setting(
        300.0, "Time in s without work after which a worker in the queue ends its job.", ge=0
    )
    relax: RelaxJobs = Field(default_factory=RelaxJobs)
    train: TrainJobs = Field(default_factory=TrainJobs)
    dft: DFTJobs = Field(default_factory=DFTJobs)

    @field_validator("setup")
    @classmethod
    def _setup_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        return _single_lines(lines)

    @field_validator("environment")
    @classmethod
    def _variables(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(
                    f"{name!r} is no name of a variable; expected letters, digits and '_'"
                )
            if name in SECRET_VARIABLES:
                raise ValueError(
                    f"{name} may hold a password, and job scripts can be read by others; give the "
                    "address under [database] as uri_file"
                )
        _single_lines(variables.values())
        return variables


def _seconds(walltime: str) -> int:
    hours, minutes, seconds = map(int, walltime.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def _single_lines(lines: Iterable[str]) -> tuple[str, ...]:
    """The same lines, if each can stand in a job script."""
    for line in lines:
        # FireWorks keeps them in YAML, which knows more line breaks than a shell.
        odd = any(unicodedata.category(one) in NOT_IN_LINES for one in line if one != "\t")
        if odd or TEMPLATE_SIGN in line:
            raise ValueError(
                f"{line!r} cannot stand in a job script; expected single lines without control "
                f"characters and '{TEMPLATE_SIGN}', which FireWorks' templates use"
            )
    return tuple(lines)
