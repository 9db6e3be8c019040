"""Tables and lists of the page as Dash's components: text, never markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dash import html

from hullscreen.launch.dashboard.structure_data import structure_facts
from hullscreen.launch.hull_pictures import with_subscripts
from hullscreen.launch.result_tables import duration

CATEGORIES = {"dft": "DFT", "train": "training and decisions", "relax": "relaxation"}
COUNTED = {
    "waiting": "waiting",
    "ready": "ready",
    "in_queue": "in queue",
    "running": "running",
    "lost": "lost",
    "failed": "failed",
    "done": "done",
}
BAD = ("lost", "failed")
WORK = {
    "prototypes": "prototypes written",
    "dft_single_points": "DFT single points",
    "relaxations": "structures relaxed with the potential",
    "dft_relaxations": "DFT relaxations",
}
UNKNOWN = "–"

Plain = Mapping[str, Any]


def job_table(jobs: Plain) -> list[Any]:
    """How far the round is, steps by category with their speed, and who is at work."""
    body = [
        html.Tr(
            [
                html.Th(CATEGORIES.get(row["category"], row["category"]), scope="row"),
                *(
                    html.Td(f"{row[name]:,}", className="bad" if name in BAD and row[name] else "")
                    for name in COUNTED
                ),
                html.Td(UNKNOWN if row["per_hour"] is None else f"{row['per_hour']:,.0f}"),
                html.Td(_left(row["left_s"])),
            ]
        )
        for row in jobs["rows"]
    ]
    names = ("steps", *COUNTED.values(), "per hour", "time left")
    hosts = ", ".join(f"{n} on {host}" for host, n in jobs["hosts"].items())
    notes = [f"At work: {hosts}." if hosts else "Nobody is at work."]
    if jobs["per_minute"]:
        notes.append(f"{jobs['per_minute']:.3g} DFT evaluations per minute.")
    return [*_progress(jobs), _table(names, body), _note(" ".join(notes))]


def _progress(jobs: Plain) -> Iterator[Any]:
    """Bars of the present round."""
    for kind, counts in jobs["progress"].items():
        done, total = counts.get("done") or 0, counts.get("total")
        words = f"{WORK.get(kind, kind)}: {done:,}"
        yield html.Label(
            [
                words if total is None else f"{words} of {total:,}",
                html.Progress(value=str(done), max=str(max(total or 0, done, 1))),
            ],
            className="progress",
        )


def _left(seconds: float | None) -> str:
    """A time still to come; a dash where nobody can know."""
    if seconds is None:
        return UNKNOWN
    return duration(seconds) if seconds > 0 else "nothing to do"


def stable_table(stable: Plain) -> list[Any]:
    """Stable phases and those just above the hull; the button of a row shows its structure."""
    names = ("phase", "prototype", "atoms", "formation energy (meV/atom)", "above hull (meV/atom)")
    body = [_phase(row) for row in (*stable["rows"], *stable["nearest"])]
    provisional = "" if stable["finished"] else ", provisional"
    return [_table(names, body), _note(f"Energies: {stable['energies']}{provisional}.")]


def _phase(row: Plain) -> Any:
    index = row["index"]
    pick = {"id": {"type": "pick", "index": index}, "title": f"show structure {index}"}
    return html.Tr(
        [
            html.Th(
                html.Button(with_subscripts(row["formula"]), type="button", **pick), scope="row"
            ),
            html.Td(row["prototype"], className="words"),
            html.Td(f"{row['nsites']:,}"),
            html.Td(_signed(1e3 * row["formation_energy"])),
            html.Td("stable" if row["stable"] else f"{1e3 * row['above']:.2f}"),
        ]
    )


def _signed(number: float) -> str:
    return f"{number:.1f}".replace("-", "−")


def failure_table(rows: Sequence[Plain], campaign: str, *, allow_actions: bool) -> Any:
    """What was lost or failed; buttons carry the addresses that the page's script asks."""
    if not rows:
        return _note("Nothing is lost, nothing has failed.")
    body = [
        html.Tr(
            [
                html.Th(row["what"], scope="row"),
                html.Td(_name_of(row)),
                html.Td(row["reason"], className="words"),
                html.Td(_buttons(row, campaign, allow_actions=allow_actions)),
            ]
        )
        for row in rows
    ]
    return _table(("what", "number", "reason", ""), body)


def _name_of(row: Plain) -> str:
    return f"step {row['firework']}" if "firework" in row else f"structure {row['structure']}"


def _buttons(row: Plain, campaign: str, *, allow_actions: bool) -> list[Any]:
    kind = "firework" if "firework" in row else "structure"
    given = {"data-campaign": campaign, "data-kind": kind, "data-number": str(row[kind])}
    buttons = [html.Button("log", type="button", className="log", **given)]
    if allow_actions and kind == "firework":
        buttons.append(html.Button("rerun", type="button", className="rerun", **given))
    return buttons


def structure_story(structure: dict[str, Any]) -> list[Any]:
    """The structure's numbers, and what became of it."""
    facts = structure_facts(structure)
    pairs = [part for name, value in facts for part in (html.Dt(name), html.Dd(value))]
    return [html.Dl(pairs), *(html.P(sentence) for sentence in structure["story"])]


def trouble(sentence: str) -> Any:
    """What a panel shows that has nothing else."""
    return _note(sentence)


def _note(text: str) -> Any:
    return html.P(text, className="note")


def _table(names: Sequence[str], body: list[Any]) -> Any:
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in names]))
    # What scrolls must be reached by keyboard.
    return html.Div(html.Table([head, html.Tbody(body)]), className="scrolls", tabIndex=0)
