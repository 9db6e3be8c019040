"""The page: its panels in order, and tables as Dash's components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from hullscreen.launch.hull_pictures import with_subscripts
from hullscreen.launch.result_tables import duration

# Between two questions of a browser.
REFRESH_MS = 2000
GRAPH = {"displaylogo": False, "responsive": True, "displayModeBar": False}
HEIGHTS = {"hull": 460, "learning": 460, "structure": 380}
CATEGORIES = {"dft": "DFT", "train": "training and decisions", "relax": "relaxation"}
UNKNOWN = "–"

Plain = Mapping[str, Any]


def page(names: Sequence[str], *, allow_actions: bool) -> Any:
    """Everything on the page; what is in the panels comes with the first answer."""
    return html.Div(
        [
            dcc.Interval(id="tick", interval=REFRESH_MS),
            dcc.Store(id="seen", data={}),
            dcc.Store(id="picked"),
            dcc.Store(id="scheme"),
            html.Header([_heading(names), html.P(id="status-line", role="status")]),
            html.Main(
                [
                    _graph_panel("funnel", "From the pool to the hull"),
                    _panel("jobs", "Jobs"),
                    _graph_panel("hull", "Hull", note="Choose a point or a row for its structure."),
                    _panel("stable-table", "Stable phases"),
                    html.Section(
                        [
                            html.H2("Structure", id="structure-title"),
                            _graph("structure"),
                            html.Div(id="story", **{"aria-live": "polite"}),
                        ],
                        className="panel",
                    ),
                    _graph_panel("learning", "Learning"),
                    _graph_panel("grades", "Extrapolation grades"),
                    _graph_panel("cpu", "Processor time"),
                    _panel("failures", "Lost and failed jobs"),
                ],
                className="with-actions" if allow_actions else "",
            ),
            html.Dialog(
                [
                    html.H2(id="log-title"),
                    html.Pre(id="log-text", tabIndex=0),
                    html.Button("close", id="log-close", type="button"),
                ],
                id="log",
            ),
        ]
    )


def _heading(names: Sequence[str]) -> Any:
    choice = html.Label(
        [
            "campaign ",
            dcc.Dropdown(
                list(names),
                names[0],
                id="campaign-select",
                clearable=False,
                searchable=False,
            ),
        ],
        # One campaign needs no choice, but callbacks need its name.
        hidden=len(names) == 1,
        className="choice",
    )
    toggle = html.Button("light or dark", id="scheme-toggle", type="button")
    return html.Div([html.H1("hullscreen"), choice, toggle], className="heading")


def _panel(name: str, title: str) -> Any:
    return html.Section([html.H2(title), html.Div(id=name, className="rows")], className="panel")


def _graph_panel(name: str, title: str, note: str = "") -> Any:
    children = [html.H2(title), _graph(name)]
    if note:
        children.append(html.P(note, className="note"))
    return html.Section(children, className=f"panel {name}", **{"aria-label": title})


def _graph(name: str) -> Any:
    return dcc.Graph(
        id=name,
        config=GRAPH,
        responsive=True,
        style={"height": HEIGHTS.get(name, 300)},
        figure={"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}},
    )


def job_table(rows: Sequence[Plain], quick: Plain) -> Any:
    """Steps by category with their speed, and who is at work."""
    columns = {
        "waiting": "waiting",
        "ready": "ready",
        "in_queue": "in queue",
        "running": "running",
        "lost": "lost",
        "failed": "failed",
        "done": "done",
    }
    body = [
        html.Tr(
            [
                html.Th(CATEGORIES.get(row["category"], row["category"]), scope="row"),
                *(
                    html.Td(
                        f"{row[name]:,}",
                        className="bad" if name in ("lost", "failed") and row[name] else "",
                    )
                    for name in columns
                ),
                html.Td(UNKNOWN if row["per_hour"] is None else f"{row['per_hour']:.1f}"),
                html.Td(left(row["left_s"])),
            ]
        )
        for row in rows
    ]
    head = [html.Th("steps", scope="col")]
    head += [html.Th(word, scope="col") for word in (*columns.values(), "per hour", "time left")]
    hosts = ", ".join(f"{host}: {n}" for host, n in quick["hosts"].items())
    at_work = f"At work: {hosts}." if hosts else "Nobody is at work."
    return [_table(head, body), html.P(at_work, className="note")]


def left(seconds: float | None) -> str:
    """A time still to come, in words; a dash where nobody can know."""
    return UNKNOWN if seconds is None else duration(seconds)


def stable_table(rows: Sequence[Plain]) -> Any:
    """Stable phases; the button of a row shows its structure."""
    body = [
        html.Tr(
            [
                html.Th(
                    html.Button(
                        with_subscripts(row["formula"]),
                        id={"type": "pick", "index": row["index"]},
                        type="button",
                        title=f"show structure {row['index']}",
                    ),
                    scope="row",
                ),
                html.Td(row["prototype"], className="words"),
                html.Td(f"{row['nsites']:,}"),
                html.Td(f"{1e3 * row['formation_energy']:.1f}".replace("-", "−")),
            ]
        )
        for row in rows
    ]
    names = ("phase", "prototype", "atoms", "formation energy (meV/atom)")
    return _table([html.Th(name, scope="col") for name in names], body)


def failure_table(rows: Sequence[Plain], campaign: str, *, allow_actions: bool) -> Any:
    """What was lost or failed; buttons carry the addresses that the page's script asks."""
    if not rows:
        return html.P("Nothing is lost, nothing has failed.", className="note")
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
    return _table([html.Th(name, scope="col") for name in ("what", "number", "reason", "")], body)


def _name_of(row: Plain) -> str:
    return f"step {row['firework']}" if "firework" in row else f"structure {row['structure']}"


def _buttons(row: Plain, campaign: str, *, allow_actions: bool) -> list[Any]:
    kind = "firework" if "firework" in row else "structure"
    given = {"data-campaign": campaign, "data-kind": kind, "data-number": str(row[kind])}
    buttons = [html.Button("log", type="button", className="log", **given)]
    if allow_actions and kind == "firework":
        buttons.append(html.Button("rerun", type="button", className="rerun", **given))
    return buttons


def structure_story(structure: Plain) -> list[Any]:
    """The structure's numbers, and what became of it."""
    facts = [
        ["prototype", structure["prototype"]],
        ["atoms in the cell", str(structure["nsites"])],
        ["shown as", structure["state"]],
        *structure["facts"],
    ]
    pairs = [part for name, value in facts for part in (html.Dt(name), html.Dd(value))]
    return [html.Dl(pairs), *(html.P(sentence) for sentence in structure.get("story", ()))]


def trouble(sentence: str) -> Any:
    """What a panel shows that has nothing else."""
    return html.P(sentence, className="note")


def _table(head: list[Any], body: list[Any]) -> Any:
    return html.Div(
        html.Table([html.Thead(html.Tr(head)), html.Tbody(body)]),
        className="scrolls",
        # What scrolls must be reached by keyboard.
        tabIndex=0,
    )
