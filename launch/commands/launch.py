"""`hullscreen launch`: a campaign's work through a cluster's queue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import database_option, directory_argument

if TYPE_CHECKING:
    from hullscreen.launch.settings import Settings

# Those of the settings, said here so that the help is quick.
QUEUES = ("slurm", "pbs", "sge")

EPILOG = """
\b
Examples:
  hullscreen launch cu-pd --queue slurm --dry-run     # look at the job scripts first
  hullscreen launch cu-pd --queue slurm
\b
What [launch] of hullscreen.toml says of the jobs, for instance:
  [launch]
  partition = "batch"
  account = "alloys"
  setup = ["module load quantum-espresso"]
  [launch.relax]
  cores = 16
  walltime = "12:00:00"
  [launch.dft]
  cores = 32
  jobs = 20
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option(
    "--queue",
    type=click.Choice(QUEUES),
    default=None,
    help="Kind of queue.  [default: from hullscreen.toml]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the job scripts; nothing is written, started or submitted.",
)
@click.option("--verbose", is_flag=True, help="With --dry-run: FireWorks' files as well.")
@click.option(
    "--single-node",
    is_flag=True,
    help="All jobs run on this machine: they may use the campaign's own MongoDB server.",
)
@database_option
def command(
    *,
    directory: Path,
    queue: str | None,
    dry_run: bool,
    verbose: bool,
    single_node: bool,
    database_uri: str | None,
) -> None:
    """Work on the campaign in DIRECTORY through a queue: Slurm, PBS or SGE.

    Submits the campaign as `hullscreen submit` does, and keeps jobs in the queue for its three
    kinds of steps: relax (with the potential), train (fits and decisions) and dft; as many as there
    is work for, and no more than [launch] allows. Each kind has a folder in DIRECTORY/queue with
    FireWorks' my_launchpad.yaml, my_fworker.yaml and my_qadapter.yaml, which `qlaunch` understands
    too. Workers stop before their walltime ends, and what a lost job held is done by others.

    The command ends when the hull is there. Stopped before, it leaves its jobs in the queue, and
    goes on when called again. It may run on a login node; the MongoDB server must be one that all
    nodes reach, given under [database].

    Jobs of a kind that end three times in a row without taking a step that is ready end it, with
    the last words of the last one: as a rule a line of setup fails.
    """
    import signal

    from hullscreen.launch.launchpad_file import given_uri
    from hullscreen.launch.settings import load, with_database_uri

    # A batch system's or a person's `kill` ends this like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = with_database_uri(load(directory), database_uri)
    name = queue or settings.launch.queue
    if not name:
        raise click.BadParameter(
            'say which: --queue slurm, pbs or sge, or queue = "slurm" under [launch]',
            param_hint="--queue",
        )
    if dry_run:
        _show_files(directory, settings, name, verbose=verbose)
        return
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.progress import progress_board
    from hullscreen.launch.queue_commands import QUEUES as COMMANDS
    from hullscreen.launch.queue_commands import require_programs
    from hullscreen.launch.queue_launch import launch
    from hullscreen.potentials.errors import InputError

    # Before a server is started.
    require_programs(COMMANDS[name])
    if not single_node and given_uri(settings.database, directory) is None:
        raise InputError(
            "jobs on other nodes cannot reach the campaign's own MongoDB server, which listens to "
            "this machine alone: give the address of one that all nodes reach under [database], or "
            "add --single-node if all jobs run on this machine"
        )
    options = [] if name == settings.launch.queue else ["--queue", name]
    options += ["--single-node"] * single_node
    with open_session(directory, database_uri) as session, progress_board() as board:
        launch(session, board, name, options)
    click.echo(f"The hull is there: hullscreen hull {directory}", err=True)


def _show_files(directory: Path, settings: Settings, queue: str, *, verbose: bool) -> None:
    """Print what would be written, with its place, and without the password of the database.

    Of FireWorks' files only the places, unless all is asked for.
    """
    import tempfile

    from hullscreen.database.addresses import redact, without_login
    from hullscreen.database.embedded_server import embedded_uri
    from hullscreen.launch.launchpad_file import given_uri
    from hullscreen.launch.queue_files import FOLDER, TEMPLATE_FILE, job_script, write_queue_files

    place = directory.resolve() / FOLDER
    uri = without_login(given_uri(settings.database, directory) or embedded_uri(directory))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        folders = write_queue_files(scratch, settings, uri, queue, "new-with-each-launch")
        for folder in folders.values():
            texts = {
                path.name: path.read_text(encoding="utf-8")
                for path in sorted(folder.iterdir())
                if path.name != TEMPLATE_FILE
            }
            own = folder / "launcher_TIME"
            texts[f"{own.name}/FW_submit.script"] = job_script(folder, own)
            for path, text in texts.items():
                if verbose or path.endswith(".script"):
                    shown = redact(text).replace(str(scratch), str(place)).strip()
                    click.echo(f"==> {place / folder.name / path} <==\n{shown}\n")
                else:
                    click.echo(place / folder.name / path)
