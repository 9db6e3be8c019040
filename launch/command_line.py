"""The ``hullscreen`` command: a table of commands, each imported only when it is called.

Exit codes: 0 done, 2 wrong input, 3 a potential failed, 4 DFT failed, 5 no database,
6 the campaign cannot go on, 7 a file or disk, 130 interrupted (:data:`EXIT_CODES`).
"""

import difflib
import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from hullscreen.potentials.errors import HullscreenError

EXIT_FILE_SYSTEM = 7
EXIT_BROKEN_PIPE = 1
EXIT_INTERRUPTED = 130
EXIT_DATABASE = 5

EXIT_CODES = {
    0: "done",
    2: "what was typed, or a file that was read, is wrong",
    3: "a potential could not be fitted or used",
    4: "a DFT engine is missing or failed",
    EXIT_DATABASE: "the database cannot be started or reached",
    6: "the campaign cannot go on as asked",
    EXIT_FILE_SYSTEM: "a file cannot be read or written (permissions, full disk)",
    EXIT_INTERRUPTED: "interrupted; campaigns continue when run again, single stages wrote nothing",
}

# What the operating system refused, in the words of somebody who wants to go on.
FILE_PROBLEMS = {
    errno.ENOSPC: "no space is left on the disk that holds {path}: make room, then run again",
    errno.EDQUOT: "the disk quota is used up where {path} lies: make room, then run again",
    errno.EFBIG: "{path} would exceed the limit on file sizes: raise it with `ulimit -f`",
    errno.EROFS: "{path} lies on a read-only file system: choose another directory",
    errno.EACCES: "no permission for {path}: change its permissions or choose another directory",
    errno.EPERM: "the system does not permit this for {path}: choose another directory",
    errno.ENOENT: "{path} does not exist: check the path",
    errno.ENOTDIR: "{path} is no directory: check the path",
    errno.EISDIR: "{path} is a directory where a file is expected: check the path",
    errno.EEXIST: "{path} exists already: choose another name",
    errno.EMFILE: "too many files are open: raise the limit with `ulimit -n`",
}

NO_FOLDER = "the folder {folder} does not exist: make it, or choose another path than {path}"

SERVER_GONE = (
    "the MongoDB server cannot be used ({reason}); check `hullscreen db status` or the URI in "
    "[database], then run again"
)

EPILOG = """
\b
Example: the stable alloys of copper and palladium
  hullscreen init cu-pd --elements Cu Pd
  hullscreen run cu-pd
  hullscreen hull cu-pd --picture cu-pd.png
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: the module that holds its click object ``command``, and a line of help."""

    module: str
    summary: str
    hidden: bool = False


# Read when numpy is loaded. The matrices here are small: threads of BLAS would wait for one another
# for longer than they work.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

SECTIONS: dict[str, dict[str, Entry]] = {
    "Campaigns (from element names to a hull)": {
        "init": Entry("init", "Make a campaign directory with a commented hullscreen.toml."),
        "forecast": Entry("forecast", "Say what a campaign will cost, before it begins."),
        "run": Entry("run", "Run a campaign here, to its hull; run again, it continues."),
        "launch": Entry("launch", "Run a campaign through a cluster's queue, to its hull."),
        "submit": Entry("submit", "Put a campaign into the LaunchPad, for workers elsewhere."),
        "status": Entry("status", "Show how far a campaign is, who is at it, and what failed."),
        "dashboard": Entry("dashboard", "Show campaigns on a live web page, on this machine."),
        "worker": Entry("worker", "Help a campaign with one more process, for all or some steps."),
        "logs": Entry("logs", "Show a structure's calculations, and the ends of their files."),
        "rerun": Entry("rerun", "Let failed DFT jobs run once more."),
        "pause": Entry("pause", "Let workers finish what they hold and take nothing new."),
        "resume": Entry("resume", "Let a campaign go on that was paused or cancelled."),
        "cancel": Entry("cancel", "End the work on a campaign; what it has computed is kept."),
    },
    "Results": {
        "hull": Entry("hull", "Show the stable alloys: a table, JSON or a picture."),
        "query": Entry("query", "List structures by composition, energy or stability."),
        "why": Entry("why", "Tell a structure's story: relaxations, DFT, why it was dropped."),
        "labels": Entry("labels", "List DFT results; release or recompute quarantined ones."),
        "export": Entry("export", "Write results for other programs, and the hull for a paper."),
        "report": Entry("report", "Show what each stage kept and dropped, and what it cost."),
        "brute-force": Entry("brute_force", "Relax the whole pool with DFT and compare the hulls."),
    },
    "Single stages, on files": {
        "prototypes": Entry("prototypes", "Write or count the prototypes of some elements."),
        "fit": Entry("fit", "Fit a moment tensor potential to structures with energies."),
        "errors": Entry("errors", "Compare a potential with structures whose energies are known."),
        "evaluate": Entry("evaluate", "Energies, forces, stresses and grades of structures."),
        "relax": Entry("relax", "Relax cells and positions with a potential."),
        "select": Entry("select", "Choose the structures that would teach a potential most."),
    },
    "Machine": {
        "warm-cache": Entry("warm_cache", "Compile everything now, once for each type of node."),
    },
    "Server": {
        "db": Entry("db", "Start or stop a campaign's MongoDB server; users, copies, upkeep."),
    },
}

COMMANDS: dict[str, Entry] = {
    name: entry for section in SECTIONS.values() for name, entry in section.items()
}

# What an interrupted command leaves; others only read, and say nothing of it.
INTERRUPTED = "interrupted"
_KEPT = f"{INTERRUPTED}; what is done is kept, and running the same command again continues"
_NOTHING_WRITTEN = f"{INTERRUPTED}; nothing was written"
INTERRUPTED_BY_NAME = {
    **dict.fromkeys(SECTIONS["Single stages, on files"], _NOTHING_WRITTEN),
    "launch": f"{INTERRUPTED}; jobs in the queue go on, and the same command continues with them",
    **dict.fromkeys(("run", "submit", "worker", "brute-force", "warm-cache"), _KEPT),
}


class CommandTable(click.Group):
    """A click group whose commands are the rows of :data:`COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help page."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for an unknown name."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"hullscreen.launch.commands.{entry.module}")
        command = module.command
        assert isinstance(command, click.Command)  # noqa: S101  a promise of the modules
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` start with; an unknown name brings the nearest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            advice = f"did you mean `{near[0]}`?" if near else "`hullscreen --help` lists them"
            raise click.UsageError(f"there is no command {name!r}; {advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the help page from the table, importing no command."""
        del ctx
        for title, entries in SECTIONS.items():
            rows = [(name, entry.summary) for name, entry in entries.items() if not entry.hidden]
            with formatter.section(title):
                formatter.write_dl(rows, col_max=14, col_spacing=2)


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"hullscreen {version('hullscreen')}")
    except PackageNotFoundError:
        click.echo("hullscreen (not installed: run from its source tree)")
    ctx.exit()


@click.command(
    cls=CommandTable,
    epilog=EPILOG,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Find the stable alloys of two to four metals.

    hullscreen generates crystal prototypes, relaxes them with a moment tensor potential that
    learns while it relaxes, sends to DFT only what it must, and returns the convex hull. The
    energies on the hull are DFT energies.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def describe_os_error(error: OSError) -> str:
    """One sentence for a file that cannot be read or written.

    Parameters
    ----------
    error
        What the system reported; its path is named when it carries one.
    """
    path = error.filename if error.filename is not None else os.curdir
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    folder = Path(str(path)).parent
    if error.errno == errno.ENOENT and not folder.is_dir():
        return NO_FOLDER.format(folder=folder, path=path)
    sentence = FILE_PROBLEMS.get(error.errno or 0)
    if sentence is not None:
        return sentence.format(path=path)
    reason = error.strerror or str(error)
    return f"{reason}: {path}" if error.filename is not None else reason


def _server_errors() -> tuple[type[Exception], ...]:
    """Root of pymongo's errors, if it was imported: FireWorks calls the server by itself."""
    root = getattr(sys.modules.get("pymongo.errors"), "PyMongoError", None)
    return () if root is None else (root,)


def _server_sentence(error: Exception) -> str:
    """One sentence for what FireWorks' calls of the server have met, whose address is unknown."""
    from hullscreen.database.failures import explain, is_known

    if is_known(error):
        return str(explain(error, ""))
    return SERVER_GONE.format(reason=" ".join(str(error).split())[:200])


def _usage_sentence(error: click.ClickException) -> str:
    sentence = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None or context.parent is None:
        return sentence
    return f"{sentence} (`{context.command_path} --help` shows how to call it)"


def _let_go_of_stdout() -> None:
    """Point a stdout that cannot be written to at nothing: the interpreter flushes it once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_of_compiling() -> None:
    """Let the kernels say on stderr that they are being compiled."""
    logger = logging.getLogger("hullscreen.potentials.compiling")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("hullscreen: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``hullscreen`` and return its exit code (:data:`EXIT_CODES`).

    Parameters
    ----------
    arguments
        The words after ``hullscreen``; by default those of this process.

    Notes
    -----
    Errors that a user can act on become one sentence on stderr. Others keep their traceback.
    A command's function may return an ``int`` to choose its exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    _tell_of_compiling()
    try:
        result = commands.main(words, prog_name="hullscreen", standalone_mode=False)
        sys.stdout.flush()
    except HullscreenError as error:
        sentence, exit_code = str(error), error.exit_code
    except click.ClickException as error:
        sentence, exit_code = _usage_sentence(error), 2
    except (KeyboardInterrupt, click.Abort):
        sentence = INTERRUPTED_BY_NAME.get(words[0] if words else "", INTERRUPTED)
        exit_code = EXIT_INTERRUPTED
    except BrokenPipeError:
        _let_go_of_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        _let_go_of_stdout()
        sentence, exit_code = describe_os_error(error), EXIT_FILE_SYSTEM
    except _server_errors() as error:
        sentence, exit_code = _server_sentence(error), EXIT_DATABASE
    else:
        return result if isinstance(result, int) else 0
    print(f"hullscreen: {sentence}", file=sys.stderr)  # noqa: T201  the last word goes to stderr
    return exit_code
