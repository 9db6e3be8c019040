"""The page: its panels in order, empty; what is in them comes with the first answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from hullscreen.launch.dashboard.progress_figures import NOTES

# Between two questions of a browser.
REFRESH_MS = 2000
GRAPH = {"displaylogo": False, "responsive": True, "displayModeBar": False}
# Letters that may be typed for a structure.
LONGEST_WANTED = 60
HEIGHTS = {"hull": 460, "learning": 640, "structure": 380}


def page(names: Sequence[str], *, allow_actions: bool) -> Any:
    """Everything on the page; what is in the panels comes with the first answer."""
    return html.Div(
        [
            dcc.Interval(id="tick", interval=REFRESH_MS),
            dcc.Store(id="seen", data={}),
            dcc.Store(id="drawn"),
            dcc.Store(id="picked"),
            dcc.Store(id="scheme"),
            html.Header(
                [
                    _heading(names, allow_actions=allow_actions),
                    html.P(id="status-line", role="status"),
                ]
            ),
            html.Main(
                [
                    _graph_panel("funnel", "From the pool to the hull"),
                    _panel("jobs", "Jobs"),
                    _graph_panel("hull", "Hull", note="Choose a point or a row for its structure."),
                    _panel("stable-table", "Stable phases, and the nearest above the hull"),
                    html.Section(
                        [
                            html.H2("Structure", id="structure-title", **{"aria-live": "polite"}),
                            _wanted(),
                            html.Div(
                                [_graph("structure"), html.Div(id="story")], className="beside"
                            ),
                        ],
                        className="panel wide",
                    ),
                    _graph_panel("learning", "Learning", NOTES["learning"]),
                    _graph_panel("grades", "Extrapolation grades", NOTES["grades"]),
                    _graph_panel("cpu", "Processor time"),
                    _panel("failures", "Lost and failed jobs", wide=True),
                ]
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


def _heading(names: Sequence[str], *, allow_actions: bool) -> Any:
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
    report = html.A("report as one file", id="report-link")
    # Of the campaign that is chosen.
    actions = [
        html.Button(action, type="button", className="action", **{"data-action": action})
        for action in (("pause", "resume") if allow_actions else ())
    ]
    return html.Div([html.H1("hullscreen"), choice, *actions, report, toggle], className="heading")


def _wanted() -> Any:
    """Where a structure of the pool is typed; a page has no room for all of them."""
    return html.Label(
        [
            "another, by number or formula ",
            dcc.Input(
                id="wanted",
                type="text",
                maxLength=LONGEST_WANTED,
                placeholder="such as 37 or CuPd3",
                autoComplete="off",
                spellCheck=False,
            ),
        ],
        className="choice",
    )


def _panel(name: str, title: str, *, wide: bool = False) -> Any:
    classes = "panel wide" if wide else "panel"
    return html.Section([html.H2(title), html.Div(id=name)], className=classes)


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
