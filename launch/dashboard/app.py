"""The page's callbacks: every viewer is answered from what the readers have seen last."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from dash.exceptions import CallbackException, DependencyException

from hullscreen.launch.dashboard import layout, tables
from hullscreen.launch.dashboard.actions import LARGEST_NUMBER
from hullscreen.launch.dashboard.answers import NOT_OF_THE_PAGE, answer
from hullscreen.launch.dashboard.crystal_figure import crystal_figure
from hullscreen.launch.dashboard.figures import FIGURES, figure_of
from hullscreen.launch.dashboard.reader import CampaignReader, CampaignReaders, Panel, Snapshot
from hullscreen.launch.dashboard.status_words import status_sentence
from hullscreen.launch.dashboard.structure_data import structure_data, structure_named
from hullscreen.launch.dashboard.theme import THEMES, message
from hullscreen.launch.hull_pictures import with_subscripts
from hullscreen.potentials.errors import HullscreenError

ASSETS = Path(__file__).parent / "assets"
# Ids on the page of the panels that are tables.
TABLES = {"jobs": "jobs", "stable": "stable-table", "failures": "failures"}
WAITING = Panel(None, "reading the database", "")


def make_app(readers: CampaignReaders, *, allow_actions: bool) -> Dash:
    """The page as a Dash application; its Flask server is ``app.server``.

    Parameters
    ----------
    readers
        Of one campaign or several.
    allow_actions
        Whether failed jobs have a button that runs them again.
    """
    app = Dash(
        __name__,
        assets_folder=str(ASSETS),
        serve_locally=True,
        title="hullscreen",
        update_title="",
        suppress_callback_exceptions=True,
    )
    app.index_string = app.index_string.replace("<html>", '<html lang="en">')
    app.layout = layout.page(readers.names, allow_actions=allow_actions)
    # Requests that the page does not make; what Dash says of them is for its programmers.
    app.server.register_error_handler(CallbackException, lambda _: answer(400, NOT_OF_THE_PAGE))
    app.server.register_error_handler(DependencyException, lambda _: answer(404, "not found"))
    _add_refresh(app, readers, allow_actions=allow_actions)
    _add_picking(app, readers)
    app.clientside_callback(
        ClientsideFunction("hullscreen", "scheme"),
        Output("scheme", "data"),
        Input("scheme-toggle", "n_clicks"),
    )
    app.clientside_callback(
        ClientsideFunction("hullscreen", "afterHull"),
        Output("drawn", "data"),
        Input("seen", "data"),
    )
    return app


def _add_refresh(app: Dash, readers: CampaignReaders, *, allow_actions: bool) -> None:
    @app.callback(
        output={
            "status": Output("status-line", "children"),
            "seen": Output("seen", "data"),
            "report": Output("report-link", "href"),
            **{name: Output(name, "figure") for name in FIGURES},
            **{name: Output(place, "children") for name, place in TABLES.items()},
        },
        inputs={
            "_tick": Input("tick", "n_intervals"),
            "campaign": Input("campaign-select", "value"),
            "scheme": Input("scheme", "data"),
            "seen": State("seen", "data"),
        },
    )
    def refresh(
        _tick: int | None, campaign: str, scheme: str | None, seen: dict[str, str] | None
    ) -> dict[str, Any]:
        """Only what has changed since this viewer's last question."""
        reader = readers.by_name.get(campaign) or readers.by_name[readers.names[0]]
        snapshot = reader.snapshot
        known, now_seen, answer = seen or {}, {}, {}
        for name in (*FIGURES, *TABLES):
            panel = snapshot.panels.get(name, WAITING)
            kind = f"{campaign}/{_scheme(scheme)}" if name in FIGURES else campaign
            now_seen[name] = f"{kind}/{panel.version}"
            if known.get(name) == now_seen[name]:
                answer[name] = no_update
            elif name in FIGURES:
                answer[name] = figure_of(name, panel, _scheme(scheme))
            else:
                answer[name] = _table(name, panel, snapshot, allow_actions=allow_actions)
        answer["status"] = status_sentence(snapshot, datetime.now(UTC))
        answer["report"] = f"/campaigns/{quote(snapshot.campaign, safe='')}/report.html"
        answer["seen"] = now_seen if now_seen != known else no_update
        return answer


def _scheme(scheme: str | None) -> str:
    return scheme if scheme in THEMES else "light"


def _table(name: str, panel: Panel, snapshot: Snapshot, *, allow_actions: bool) -> Any:
    if panel.trouble:
        return tables.trouble(panel.trouble)
    if name == "failures":
        return tables.failure_table(panel.data, snapshot.campaign, allow_actions=allow_actions)
    return {"jobs": tables.job_table, "stable": tables.stable_table}[name](panel.data)


def _add_picking(app: Dash, readers: CampaignReaders) -> None:
    @app.callback(
        Output("picked", "data"),
        Input("hull", "clickData"),
        Input({"type": "pick", "index": ALL}, "n_clicks"),
        Input("campaign-select", "value"),
        Input("wanted", "n_submit"),
        State("wanted", "value"),
        prevent_initial_call=True,
    )
    def pick(
        clicked: dict[str, Any] | None,
        buttons: list[int | None],
        _campaign: str,
        _submitted: int | None,
        wanted: str | None,
    ) -> Any:
        """The structure that a viewer chose in the picture or in the table, or typed."""
        if ctx.triggered_id == "campaign-select":
            # Structures of the same number have nothing to do with one another.
            return None
        if ctx.triggered_id == "wanted":
            return wanted.strip() if _is_text(wanted) else no_update
        if isinstance(ctx.triggered_id, dict):
            # A table that is drawn anew has buttons that nobody has pressed.
            chosen = ctx.triggered_id["index"] if any(buttons) else None
        else:
            points = (clicked or {}).get("points", [])
            chosen = points[0].get("customdata") if points else None
        return chosen if _is_index(chosen) else no_update

    @app.callback(
        Output("structure", "figure"),
        Output("story", "children"),
        Output("structure-title", "children"),
        Input("picked", "data"),
        Input("campaign-select", "value"),
        Input("scheme", "data"),
        Input("drawn", "data"),
        State("structure-title", "children"),
    )
    def show(
        picked: int | str | None, campaign: str, scheme: str | None, drawn: Any, title: str
    ) -> tuple[Any, Any, Any]:
        """The chosen structure; before any is chosen the most stable compound, after the hull."""
        theme = THEMES[_scheme(scheme)]
        reader = readers.by_name.get(campaign) or readers.by_name[readers.names[0]]
        chosen = _is_index(picked) or _is_text(picked)
        waits = not drawn and not chosen
        if waits or (ctx.triggered_id == "drawn" and title != "Structure"):
            return no_update, no_update, no_update
        try:
            index = _index_of(picked, reader) if chosen else _most_stable(reader.snapshot)
            if index is None:
                return message("no structure is chosen yet", theme), "", "Structure"
            structure = _read_structure(reader, index)
        except HullscreenError as error:
            return message(str(error), theme), "", "Structure"
        words = with_subscripts(structure["formula"])
        return (
            crystal_figure(structure, theme),
            tables.structure_story(structure),
            f"{words}, structure {index}",
        )


def _is_index(value: Any) -> TypeGuard[int]:
    """Whether a browser sent the number of a structure, perhaps of none that there is."""
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether a browser sent what may have been typed as a structure's number or formula."""
    return isinstance(value, str) and 0 < len(value.strip()) <= layout.LONGEST_WANTED


def _index_of(picked: Any, reader: CampaignReader) -> int:
    if _is_index(picked):
        return picked
    _expect_database(reader)
    hull = reader.snapshot.panels.get("hull", WAITING).data or {"entries": []}
    return structure_named(reader.store, picked, hull["entries"])


def _read_structure(reader: CampaignReader, index: int) -> dict[str, Any]:
    _expect_database(reader)
    return structure_data(reader.store, index)


def _expect_database(reader: CampaignReader) -> None:
    if reader.snapshot.is_old(datetime.now(UTC)):
        raise HullscreenError("the database does not answer now; choose again when it does")


def _most_stable(snapshot: Snapshot) -> int | None:
    rows = (snapshot.panels.get("stable", WAITING).data or {}).get("rows", [])
    compounds = [row for row in rows if max(row["fractions"]) < 1.0]
    chosen = min(compounds or rows, key=lambda row: float(row["formation_energy"]), default=None)
    return None if chosen is None else int(chosen["index"])
