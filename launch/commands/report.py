"""``hullscreen report``: what each stage of a campaign kept and dropped, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hullscreen.launch.json_text import json_text
from hullscreen.launch.options import database_option, directory_argument, json_option

if TYPE_CHECKING:
    from rich.console import Console

STAGES = {"screen_1": "screen 1", "screen_2": "screen 2", "final": "final"}
PARTS = {
    "prototypes": "prototypes",
    "dft_labels": "DFT single points",
    "training": "training",
    "relaxation": "relaxation with the potential",
    "selection": "selection and decisions",
    "database": "reading and writing the database",
    "mongod": "database server",
    "fireworks": "FireWorks and all else",
    "dft_final": "final DFT relaxations",
}
MOMENTS = {"start": "before it began", "seed": "when the seed was labelled"}
PROCESSES = {"worker": "a worker", "mongod": "the database server"}
FAILURES_SHOWN = 20


@click.command(epilog="Example: hullscreen report cu-pd --json | jq .dft_evaluations.total")
@directory_argument
@database_option
@json_option
def command(*, directory: Path, database_uri: str | None, as_json: bool) -> None:
    """Show what each stage of the campaign in DIRECTORY kept and dropped, and what it cost.

    σ is the energy error of a stage's potential on relaxed structures outside its training set,
    with its uncertainty, its largest single error and the size of the sample; structures further
    above the hull than the window were dropped.
    """
    from hullscreen.database.launchpad_state import working_intervals
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.workflows.report import campaign_report

    with open_started(directory, database_uri) as session:
        intervals = working_intervals(session.connection, session.store.name)
        report = campaign_report(session.store, intervals)
        if as_json:
            click.echo(json_text(report))
        else:
            _show(report)


def _show(report: dict[str, Any]) -> None:
    from hullscreen.launch.result_tables import result_console

    console = result_console()
    state = "finished" if report["finished"] else "not finished"
    name = f"{report['campaign']} ({'–'.join(report['elements'])}, {report['dft_engine']})"
    console.print(f"{name}: {state}{_wall_time(report['wall_seconds'])}\n")
    _show_funnel(console, report)
    _show_sigma(console, report)
    _show_dft(console, report)
    _show_forecasts(console, report)
    _show_cpu(console, report)
    _show_potentials(console, report)
    for failed in report["failures"][:FAILURES_SHOWN]:
        console.print(
            f"DFT failed on structure {failed['structure_index']} ({failed['purpose']}, "
            f"{failed['kind'].replace('_', ' ')}): {failed['reason']}"
        )
    if len(report["failures"]) > FAILURES_SHOWN:
        console.print(f"... and on {len(report['failures']) - FAILURES_SHOWN} more (`--json`).")
    _show_quarantined(console, report)


def _show_quarantined(console: Console, report: dict[str, Any]) -> None:
    quarantined = report["quarantined"]
    for row in quarantined[:FAILURES_SHOWN]:
        console.print(
            f"Quarantined: {row['formula_pretty']} ({row['purpose']}, "
            f"{row['kind'].replace('_', ' ')}, key {row['key'][:12]}): {row['reason']}"
        )
    if quarantined:
        console.print(
            f"DFT results that cannot be right: {len(quarantined)}. They taught nothing and are on "
            "no hull; `hullscreen labels DIR --quarantined` lists them and says how to let one "
            "count."
        )
    for number, doubt in report["doubts"].items():
        console.print(f"Round {number}: {doubt}.")


def _wall_time(wall: dict[str, float] | None) -> str:
    from hullscreen.launch.result_tables import duration

    if wall is None:
        return ""
    text = f" after {duration(wall['working'])} of work"
    if wall["elapsed"] > 1.1 * wall["working"] + 1.0:
        text += f", {duration(wall['elapsed'])} with pauses"
    return text


def _show_funnel(console: Console, report: dict[str, Any]) -> None:
    from hullscreen.launch.result_tables import print_table

    funnel = report["funnel"]
    pool = dict(funnel["prototypes"])
    total = pool.pop("total", None)
    rows: list[tuple[Any, ...]] = [("prototypes", total, _listed(pool))]
    for key in ("screen_1", "screen_2"):
        stage = funnel[key]
        if stage["entered"] is None:
            continue
        rows.append((STAGES[key], stage["entered"], ""))
        outcomes = {name.replace("_", " "): n for name, n in report["outcomes"][key].items()}
        rows.append(("  relaxed", sum(outcomes.values()), _listed(outcomes)))
        rows += [("  dropped", n, reason) for reason, n in stage["dropped"].items()]
        rows.append(
            ("  kept", stage["kept"], "" if stage["kept"] is not None else "not decided yet")
        )
    final = funnel["final"]
    if final["entered"] is not None:
        rows.append(("final", final["entered"], ""))
        rows += [("  dropped", n, reason) for reason, n in final["dropped"].items()]
        rows.append(("  relaxed with DFT", final["dft_relaxed"], ""))
        if final["dft_failed"]:
            rows.append(("  failed", final["dft_failed"], "the hull lacks them"))
        if final["pending"]:
            rows.append(("  to come", final["pending"], ""))
        if final["stable"] is not None:
            rows.append(("stable phases", final["stable"], _ties(final["ties"])))
    print_table(console, "Structures", ["", "number>", ""], rows)


def _ties(n: int) -> str:
    return f"and {n} {'tie' if n == 1 else 'ties'} within 0.5 meV/atom of the hull" if n else ""


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)


def _show_sigma(console: Console, report: dict[str, Any]) -> None:
    from hullscreen.launch.result_tables import print_table

    rows = [
        (
            STAGES[key],
            f"{sigma['sigma_mev_per_atom']:.2f} ± {sigma['uncertainty_mev_per_atom']:.2f}",
            f"{sigma['largest_mev_per_atom']:.2f}",
            f"{sigma['mean_mev_per_atom']:+.2f}",
            sigma["n_structures"],
            _window(sigma),
            _lost(sigma["expected_lost"]) if sigma["final"] else "so far",
        )
        for key, sigma in report["sigma"].items()
        if sigma is not None
    ]
    if rows:
        print_table(
            console,
            "Energy errors of the potentials on structures they were not trained on, meV/atom",
            ["", "σ>", "largest>", "mean>", "sample>", "window>", "lost, expected>"],
            rows,
        )


def _lost(expected: dict[str, float]) -> str:
    """Structures below the hull among the dropped: with Gaussian and with heavy-tailed errors."""
    return f"{expected['gaussian']:.2g} to {expected['heavy_tailed']:.2g}"


def _window(sigma: dict[str, Any]) -> str:
    """The window, and what set it: so many σ, or a structure seen further below its prediction."""
    window = sigma["window_mev_per_atom"]
    for name, width in (
        (f"{sigma['multiple']:g} σ =", sigma["multiple"] * sigma["sigma_mev_per_atom"]),
        ("lowest error", -sigma["lowest_mev_per_atom"]),
    ):
        # The widest decides; rounding aside.
        if window <= width * (1 + 1e-9):
            return f"{name} {window:.2f}"
    return f"a tenth kept {window:.2f}"


def _show_dft(console: Console, report: dict[str, Any]) -> None:
    from hullscreen.launch.result_tables import print_table

    evaluations = report["dft_evaluations"]
    rows: list[tuple[Any, ...]] = [
        (
            purpose, costs["single_points"], costs["relaxations"], evaluations[purpose],
            costs["failed"],
        )
        for purpose, costs in report["dft_calculations"].items()
    ]  # fmt: skip
    totals = [sum(row[i] for row in rows) for i in (1, 2, 3, 4)]
    print_table(
        console,
        f"DFT ({report['dft_engine']}), what was computed for this campaign",
        ["for", "single points>", "relaxations>", "energy evaluations>", "failed>"],
        [*rows, ("total", *totals)],
    )


def _show_forecasts(console: Console, report: dict[str, Any]) -> None:
    from hullscreen.launch.forecast_summary import span, time_span

    for moment, made in report["forecasts"].items():
        numbers, cpu = made["calculations"], made["cpu_seconds"]["total"]
        console.print(
            f"Expected {MOMENTS[moment]}: {span(numbers['single_points'])} single points, "
            f"{span(numbers['relaxations'])} relaxations"
            + (f", {time_span(cpu)} of processor time." if cpu else ".")
        )
    if report["forecasts"]:
        console.print()


def _show_cpu(console: Console, report: dict[str, Any]) -> None:
    from hullscreen.launch.result_tables import duration, print_table

    seconds = report["cpu_seconds"]
    rows = [
        (PARTS.get(part, part), duration(value), f"{100 * value / (seconds['total'] or 1.0):.1f} %")
        for part, value in seconds.items()
        if part != "total"
    ]
    print_table(
        console, "Processor time", ["", "time>", "share>"],
        [*rows, ("total", duration(seconds["total"]), "")],
    )  # fmt: skip
    rate = report["structures_per_cpu_second"]
    if rate:
        console.print(f"{rate:,.0f} structures per CPU second were relaxed with a potential.")
    peaks = report["peak_memory_bytes"]
    if peaks:
        listed = ", ".join(f"{PROCESSES[name]} {n / 2**20:,.0f} MiB" for name, n in peaks.items())
        console.print(f"Peak memory: {listed}.")
    console.print()


def _show_potentials(console: Console, report: dict[str, Any]) -> None:
    from hullscreen.launch.result_tables import print_table

    potentials = {potential["number"]: potential for potential in report["potentials"]}
    rows = []
    for round_ in report["rounds"]:
        fitted = potentials.get(round_["number"])
        rows.append(
            (
                round_["number"],
                STAGES[round_["stage"]],
                round_["purpose"],
                round_["dft_single_points"] or None,
                round_["wave"] if round_["purpose"] in ("seed", "learn", "refine") else None,
                fitted["level"] if fitted else None,
                fitted["n_training"] if fitted else None,
                f"{fitted['loss']:.2e}" if fitted else None,
                f"{fitted['condition']:.1e}" if fitted else None,
            )
        )
    print_table(
        console,
        "Rounds, and the potentials that they fitted",
        ["round>", "stage", "purpose", "new labels>", "wave>", "level>", "labels>", "loss>",
         "condition>"],
        rows,
    )  # fmt: skip
