"""One HTML file of a campaign that needs nothing else: the page's figures, tables and structures.

The file holds plotly once and asks for nothing, which its content security policy makes sure of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection
from hullscreen.launch.dashboard.crystal_figure import crystal_figure
from hullscreen.launch.dashboard.figures import FIGURES, figure_of
from hullscreen.launch.dashboard.progress_figures import NOTES
from hullscreen.launch.dashboard.reader import Snapshot, seen_now
from hullscreen.launch.dashboard.status_words import status_sentence
from hullscreen.launch.dashboard.structure_data import structure_data, structure_facts
from hullscreen.launch.dashboard.theme import THEMES
from hullscreen.launch.hull_pictures import with_subscripts
from hullscreen.launch.json_text import json_text
from hullscreen.potentials.errors import HullscreenError
from hullscreen.workflows.provenance import provenance

FOLDER = Path(__file__).parent
TITLES = {
    "funnel": "From the pool to the hull",
    "hull": "Hull",
    "learning": "Learning",
    "grades": "Extrapolation grades",
    "cpu": "Processor time",
}
HEIGHTS = {"hull": 460, "learning": 640}
# Structures of more stable phases than this are left out: each is a few kilobytes.
STRUCTURES = 200
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def report_html(store: CampaignStore, connection: Connection) -> str:
    """A campaign as one HTML document, finished or not, with its provenance.

    Raises
    ------
    CampaignError
        The database does not hold the campaign.
    DatabaseError
        The server is away.
    """
    store.campaign()
    snapshot = seen_now(store, connection)
    structures = _structures(store, snapshot)
    stable = snapshot.panels["stable"].data or {"rows": []}
    given = {
        "figures": {
            name: {scheme: figure_of(name, snapshot.panels[name], scheme) for scheme in THEMES}
            for name in FIGURES
        },
        "structures": structures,
        "chosen": next(iter(structures), ""),
    }
    from plotly.offline import get_plotlyjs

    name = escape(store.name)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{name}: hullscreen</title>",
            f"<style>{_text('assets/page.css')}</style></head><body>",
            f'<header><h1>{name}</h1><p id="status-line">{_status(snapshot)}</p></header><main>',
            _panel("funnel", "wide"),
            _panel("hull"),
            _table_panel("Stable phases", "stable-table", *_stable(stable["rows"])),
            _structure_panel(),
            *(_panel(name) for name in ("learning", "grades", "cpu")),
            _failures(snapshot),
            _origin(provenance(store)),
            f'</main><script type="application/json" id="given">{_inert(given)}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{_text('report/report.js')}</script></body></html>",
            "",
        ]
    )


def _text(path: str) -> str:
    return (FOLDER / path).read_text(encoding="utf-8")


def _inert(value: Any) -> str:
    """JSON inside HTML: no text of the database can end the element that it stands in.

    What is no JSON would leave every picture blank: numbers that are not finite become null, and
    other values of the database texts.
    """
    return json_text(value, default=str, separators=(",", ":")).replace("<", "\\u003c")


def _status(snapshot: Snapshot) -> str:
    seen = snapshot.seen_at
    return "" if seen is None else escape(status_sentence(snapshot, seen))


def _structures(store: CampaignStore, snapshot: Snapshot) -> dict[str, Any]:
    """Stable phases by the number of their structures, in the order in which they are shown."""
    rows = (snapshot.panels["stable"].data or {"rows": []})["rows"]
    found = {}
    for row in sorted(rows, key=lambda row: float(row["formation_energy"]))[:STRUCTURES]:
        try:
            structure = structure_data(store, row["index"])
        except HullscreenError:
            # The table still has it.
            continue
        found[str(row["index"])] = {
            "title": f"{with_subscripts(structure['formula'])}, structure {row['index']}",
            "facts": structure_facts(structure),
            "story": structure["story"],
            "figures": {name: crystal_figure(structure, theme) for name, theme in THEMES.items()},
        }
    return found


def _panel(name: str, more: str = "") -> str:
    height = HEIGHTS.get(name, 300)
    note = f'<p class="note">{NOTES[name]}</p>' if name in NOTES else ""
    return (
        f'<section class="panel {more or name}"><h2>{TITLES[name]}</h2>'
        f'<div id="{name}" style="height: {height}px"></div>{note}</section>'
    )


def _structure_panel() -> str:
    return (
        '<section class="panel wide"><h2 id="structure-title" aria-live="polite">Structure</h2>'
        '<div class="beside"><div id="structure" style="height: 380px"></div>'
        '<div id="story"></div></div></section>'
    )


def _stable(rows: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], Iterator[list[str]]]:
    names = ("phase", "prototype", "atoms", "formation energy (meV/atom)")
    return names, (
        [
            (
                f'<button type="button" data-structure="{int(row["index"])}">'
                f"{escape(with_subscripts(row['formula']))}</button>"
            ),
            escape(row["prototype"]),
            f"{row['nsites']:,}",
            f"{1e3 * row['formation_energy']:.1f}".replace("-", "−"),
        ]
        for row in rows
    )


def _failures(snapshot: Snapshot) -> str:
    rows = snapshot.panels["failures"].data or []
    if not rows:
        return ""
    cells = ([escape(row["what"]), escape(row["reason"])] for row in rows)
    return _table_panel("Lost and failed jobs", "failures", ("what", "reason"), cells, "wide")


def _table_panel(
    title: str, name: str, names: Sequence[str], rows: Iterator[list[str]], more: str = ""
) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f'<th scope="col">{one}</th>' for one in names)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{one}</td>" for one in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<section class="panel {more}"><h2>{title}</h2><div class="scrolls" id="{name}" '
        f'tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        "</section>"
    )


def _origin(origin: Mapping[str, Any]) -> str:
    text = escape(json.dumps(origin, indent=2, ensure_ascii=False, default=str))
    return (
        '<section class="panel wide"><details><summary>Where this comes from</summary>'
        f"<pre>{text}</pre></details></section>"
    )
