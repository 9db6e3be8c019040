"""``hullscreen warm-cache``: compile everything now, so that no job waits for it."""

from __future__ import annotations

import json
import time

import click

from hullscreen.launch.options import ManyValues, json_option


@click.command("warm-cache", epilog="Example: NUMBA_CACHE_DIR=/scratch/numba hullscreen warm-cache")
@click.option(
    "--levels",
    cls=ManyValues,
    metavar="LEVEL...",
    type=click.IntRange(min=2),
    help="Levels of potentials to prepare.  [default: 8 to 20]",
)
@json_option
def command(*, levels: tuple[int, ...], as_json: bool) -> None:
    """Compile all kernels and generate the bases of moment tensor potentials, once.

    Without it the first campaign, fit or evaluation on a machine does so, which takes a minute
    or two. Run it once on each type of node of a cluster, with the environment that its jobs will
    have: compiled code lies in NUMBA_CACHE_DIR if that is set, else beside the program or in your
    cache directory; bases lie in HULLSCREEN_CACHE_DIR, else in your cache directory.
    """
    for level in levels:
        if level % 2:
            raise click.BadParameter(f"the level of a potential is an even number, got {level}")
    from hullscreen.launch.progress import progress_board
    from hullscreen.potentials.compiling import compiled_now
    from hullscreen.workflows.warm_up import LEVELS, PARTS, warm_up

    started = time.monotonic()
    done: list[str] = []
    with progress_board() as board:
        board.note(f"at work: {PARTS[0]}")
        for part in warm_up(levels or LEVELS):
            done.append(part)
            board.show("parts prepared", len(done), len(PARTS) + len(levels or LEVELS))
            if len(done) <= len(PARTS):
                board.note(f"at work: {[*PARTS, 'bases'][len(done)]}")
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps({"prepared": done, "compiled": compiled_now(), "seconds": seconds}))
    elif not compiled_now():
        click.echo(f"nothing to compile: all was prepared (looked through in {seconds:.0f} s)")
    else:
        click.echo(f"prepared {', '.join(done)} in {seconds:.0f} s")
