"""`hullscreen worker`: processes for a campaign, of `hullscreen run`, in a job, or beside."""

from pathlib import Path

import click

from hullscreen.launch.options import ManyValues

# Those of the Fireworks, said here so that the help is quick.
CATEGORIES = ("dft", "relax", "train")

EPILOG = """
\b
Examples:
  hullscreen worker cu-pd --category relax train
  hullscreen worker cu-pd/queue/dft --stop-after 3600     # only with the files of `launch`
"""


@click.command(epilog=EPILOG)
@click.argument(
    "directory", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIRECTORY"
)
@click.option(
    "--category",
    "categories",
    cls=ManyValues,
    type=click.Choice(CATEGORIES),
    metavar="KIND...",
    help="Kinds of steps to take: dft, relax (with the potential), train (fits and decisions); by "
    "default all, or those of my_fworker.yaml.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that take steps.",
)
@click.option(
    "--stop-after",
    "stop_after_s",
    type=click.FloatRange(min=1.0),
    default=None,
    metavar="SECONDS",
    help="Wall time that the queue gives: a little before, steps are handed back.",
)
@click.option(
    "--idle",
    "idle_s",
    type=click.FloatRange(min=0.0),
    default=float("inf"),
    metavar="SECONDS",
    help="End after so long without anything to do; by default wait until the hull is there.",
)
@click.option("--parent", type=int, default=None, hidden=True)
def command(
    directory: Path,
    categories: tuple[str, ...],
    processes: int,
    stop_after_s: float | None,
    idle_s: float,
    parent: int | None,
) -> int:
    """Work on the steps of a campaign until its hull is there.

    DIRECTORY is that of the campaign, which `hullscreen run`, `submit` or `launch` has begun, or a
    folder with FireWorks' my_launchpad.yaml and my_fworker.yaml of it: nothing else is needed on
    another machine. Asked to end (SIGTERM, Ctrl-C, the end of its time), it hands its step back;
    killed, it leaves it to the others.
    """
    from hullscreen.launch.worker_processes import work_here, work_in_processes

    if processes > 1:
        return work_in_processes(
            directory, processes, categories, stop_after_s=stop_after_s, idle_s=idle_s
        )
    work_here(directory, categories, stop_after_s=stop_after_s, idle_s=idle_s, parent=parent)
    return 0
