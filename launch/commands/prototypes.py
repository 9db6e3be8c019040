"""``hullscreen prototypes``: count the prototypes of some elements, or write them to a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import ManyValues, json_option

if TYPE_CHECKING:
    from hullscreen.workflows.prototypes import PrototypeBatch, PrototypePool


@click.command(
    epilog="Example: hullscreen prototypes --elements Cu Pd --max-atoms 6 --output pool.xyz"
)
@click.option(
    "--elements",
    cls=ManyValues,
    required=True,
    metavar="SYMBOL...",
    help="Two to four element symbols.",
)
@click.option(
    "--lattices",
    cls=ManyValues,
    default=("fcc", "bcc", "hcp"),
    metavar="LATTICE...",
    help="Parent lattices: fcc bcc hcp dhcp 9R sc; by default the first three.",
)
@click.option(
    "--max-atoms",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Atoms per cell of derivative structures, at most.",
)
@click.option(
    "--aflow/--no-aflow",
    default=False,
    help="Whether decorations of AFLOW prototypes belong to the pool; by default not.",
)
@click.option(
    "--aflow-max-atoms",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Atoms per primitive cell of AFLOW prototypes, at most.",
)
@click.option("--count", "count_only", is_flag=True, help="Count by lattice; write no file.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="extxyz file to write; one that exists is replaced when the new one is complete.",
)
@json_option
def command(
    *,
    elements: tuple[str, ...],
    lattices: tuple[str, ...],
    max_atoms: int,
    aflow: bool,
    aflow_max_atoms: int,
    count_only: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Count the prototypes of some elements, or write them as extxyz."""
    from hullscreen.launch.output_files import check_ending
    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows.prototypes import PrototypePool

    if output is not None and not count_only:
        check_ending(output, (".xyz", ".extxyz"))
    if not count_only and output is None:
        raise InputError("nothing to do: give --count, or --output FILE to write the structures")
    pool = PrototypePool(elements, lattices, max_atoms, aflow, aflow_max_atoms)
    counts = pool.count()
    if output is not None and not count_only:
        _write(pool, output, counts["total"])
    if as_json:
        click.echo(json.dumps(counts))
        return
    for name, number in counts.items():
        click.echo(f"{name:6s}{number:>12,}")
    _explain(pool)


def _explain(pool: PrototypePool) -> None:
    """Say on stderr how many AFLOW prototypes and decorations are no members, and why."""
    kinds = {
        "more than": "AFLOW prototypes with too many atoms or species",
        "a derivative": "AFLOW prototypes that are derivative structures of the pool",
        "the same": "decorations equal to another one",
    }
    reasons = Counter(
        text for reason in pool.left_out().values() for key, text in kinds.items() if key in reason
    )
    for text, number in reasons.items():
        click.echo(f"left out: {number} {text}", err=True)


def _write(pool: PrototypePool, output: Path, total: int) -> None:
    from hullscreen.launch.progress import progress_board
    from hullscreen.potentials.data_files import complete_or_absent

    done = 0
    with (
        complete_or_absent(output) as path,
        path.open("w", encoding="utf-8") as file,
        progress_board() as board,
    ):
        for batch in pool.batches():
            file.writelines(_frames(batch, pool.elements))
            done += len(batch.prototypes)
            board.show("prototypes written", done, total)


def _frames(batch: PrototypeBatch, elements: tuple[str, ...]) -> Iterator[str]:
    """Structures as extxyz, eight decimals: 1e-8 Å is far below any force tolerance."""
    for i, prototype in enumerate(batch.prototypes):
        cell, positions, kinds = batch.structures.one(i)
        lattice = " ".join(f"{number:.8f}" for number in cell.ravel().tolist())
        yield (
            f'{len(kinds)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 '
            f'prototype={prototype} pbc="T T T"\n'
        )
        for kind, (x, y, z) in zip(kinds.tolist(), positions.tolist(), strict=True):
            yield f"{elements[kind]} {x:.8f} {y:.8f} {z:.8f}\n"
