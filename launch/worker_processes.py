"""Processes that work on a campaign: started, given their environment, and ended in order."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection, connect
from hullscreen.database.schema import check_schema
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.launchpad_file import FILE_NAME as LAUNCHPAD_FILE
from hullscreen.launch.launchpad_file import FIREWORKS_SETTINGS
from hullscreen.launch.settings import FILE_NAME as SETTINGS_FILE
from hullscreen.potentials.errors import InputError

FWORKER_FILE = "my_fworker.yaml"
# An address may hold a password, so it does not go onto a command line.
URI_VARIABLE = "HULLSCREEN_WORKER_DB_URI"
# Between being asked to end and being killed: enough to hand a step back.
PATIENCE_S = 10.0
POLL_S = 0.2
# A worker that ends this often before it has worked for a minute has met a fault that stays.
MAX_RESTARTS = 5
SETTLED_S = 60.0


def start_worker(
    directory: Path, *options: str, environment: Mapping[str, str], log: IO[bytes] | None
) -> subprocess.Popen[bytes]:
    """Start a process on one core, which ends when this one does."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "hullscreen.launch", "worker", str(directory),
            "--parent", str(os.getpid()), *options,
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={
            **os.environ,
            # One process per core: threads inside would only get in each other's way.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            **environment,
        },
    )  # fmt: skip


def end_workers(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask workers to end and hand back what they hold; kill those that take too long."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def work_in_processes(
    directory: Path,
    n_processes: int,
    categories: Sequence[str],
    *,
    stop_after_s: float | None,
    idle_s: float,
) -> int:
    """Work with several processes until all have ended; the exit code of the last that failed."""
    began = time.monotonic()
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: asked.append(got))

    def start() -> tuple[subprocess.Popen[bytes], float]:
        options = ["--idle", str(idle_s)]
        if stop_after_s is not None:
            left = stop_after_s - (time.monotonic() - began)
            options += ["--stop-after", str(max(left, 1.0))]
        if categories:
            options += ["--category", *categories]
        return start_worker(directory, *options, environment={}, log=None), time.monotonic()

    at_work = [start() for _ in range(n_processes)]
    restarts = status = 0
    try:
        while at_work and not asked:
            time.sleep(POLL_S)
            for process, since in [one for one in at_work if one[0].poll() is not None]:
                at_work.remove((process, since))
                if process.returncode == 0:
                    continue
                status = process.returncode
                restarts = restarts + 1 if time.monotonic() - since < SETTLED_S else 1
                # A wrong setting or a missing file ends all of them at once, with a sentence.
                if status < 0 and restarts <= MAX_RESTARTS:
                    at_work.append(start())
    finally:
        end_workers([process for process, _ in at_work])
    return 0 if asked else status


def work_here(
    directory: Path,
    categories: Sequence[str],
    *,
    stop_after_s: float | None,
    idle_s: float,
    parent: int | None,
) -> None:
    """Work in this process until the campaign is finished, or it is asked to end.

    Raises
    ------
    CampaignError
        The database holds no such campaign.
    InputError
        The directory is neither a campaign's nor one of launch files.
    """
    # Read when FireWorks is imported.
    os.environ.setdefault("FW_CONFIG_FILE", str(FIREWORKS_SETTINGS))
    from hullscreen.dft_adapters.guardian import die_with_parent
    from hullscreen.workflows.interruption import end_after, end_on_signals
    from hullscreen.workflows.worker import launchpad_on, work

    faulthandler.enable()
    # A Ctrl-C in the terminal is for the parent, which then ends its workers.
    end_on_signals(on_ctrl_c=parent is None)
    if parent is not None:
        die_with_parent(signal.SIGTERM, parent)
    if stop_after_s is not None:
        end_after(stop_after_s)
    with _opened(directory) as (connection, store, wanted):
        # One that was never started ends here, with a sentence.
        store.campaign()
        launchpad = launchpad_on(connection.uri, connection.name)
        with closing(launchpad.connection):
            work(launchpad, store, categories=categories or wanted, idle_s=idle_s)


@contextmanager
def _opened(directory: Path) -> Iterator[tuple[Connection, CampaignStore, tuple[str, ...]]]:
    """A campaign's database, its documents, and the categories that its launch files name."""
    if (directory / SETTINGS_FILE).exists() or not (directory / FWORKER_FILE).exists():
        with open_session(directory, os.environ.pop(URI_VARIABLE, None)) as session:
            logs = session.directory / "logs"
            logs.mkdir(exist_ok=True)
            os.chdir(logs)
            yield session.connection, session.store, ()
        return
    address = _read(directory / LAUNCHPAD_FILE)
    worker = _read(directory / FWORKER_FILE)
    try:
        uri, database_name = address["host"], address["name"]
        # FireWorks writes and reads the query as JSON.
        query = worker["query"]
        campaign = (json.loads(query) if isinstance(query, str) else query)["spec.campaign"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"the files {LAUNCHPAD_FILE} and {FWORKER_FILE} in {directory} should name host, name "
            f"and query: {{spec.campaign: NAME}}, but {error} is missing: `hullscreen launch` "
            "writes them"
        ) from error
    category = worker.get("category") or ()
    database = connect(uri, database_name)
    connection = Connection(database=database, uri=uri, name=database_name, embedded=False)
    with closing(database.client):
        check_schema(connection)
        yield (
            connection,
            CampaignStore(connection, campaign),
            (category,) if isinstance(category, str) else tuple(category),
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold keys and values, as FireWorks' files do")
    return content
