"""Colours of the pictures, light and dark, which the colour-blind can tell apart too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Theme:
    """Colours of one scheme; the data's are Okabe and Ito's.

    Attributes
    ----------
    ink, faint, grid, paper
        Of text, of what is less important, of lines behind the data, and of the page.
    first, second, third, fourth
        Of data.
    scale
        Of heights above the hull: the nearest are the farthest from the paper.
    """

    ink: str
    faint: str
    grid: str
    paper: str
    first: str
    second: str
    third: str
    fourth: str
    scale: tuple[tuple[float, str], ...]


THEMES = {
    "light": Theme(
        ink="#1c2733",
        faint="#9aa5b1",
        grid="#e3e8ed",
        paper="#ffffff",
        first="#0072B2",
        second="#D55E00",
        third="#009E73",
        fourth="#CC79A7",
        scale=((0.0, "#662506"), (0.35, "#cc4c02"), (0.7, "#fe9929"), (1.0, "#fee391")),
    ),
    "dark": Theme(
        ink="#e6edf3",
        faint="#76828f",
        grid="#2b3540",
        paper="#161d25",
        first="#56B4E9",
        second="#E69F00",
        third="#2FC79A",
        fourth="#E29AC4",
        scale=((0.0, "#fff7bc"), (0.35, "#fec44f"), (0.7, "#ec7014"), (1.0, "#8c3d04")),
    ),
}


def layout(theme: Theme, **more: Any) -> dict[str, Any]:
    """What all figures share: transparent, quiet, with room for the words of the axes."""
    axis = {
        "gridcolor": theme.grid,
        "linecolor": theme.faint,
        "zerolinecolor": theme.faint,
        "automargin": True,
        "title": {"standoff": 8},
    }
    shared: dict[str, Any] = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": theme.ink},
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": FONT}},
        "xaxis": axis,
        "yaxis": axis,
    }
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(shared.get(name), dict)
        shared[name] = {**shared[name], **value} if both else value
    return shared


def message(text: str, theme: Theme) -> dict[str, Any]:
    """A figure that only says something, in lines short enough for a phone."""
    import textwrap

    lines = "<br>".join(escaped(line) for line in textwrap.wrap(text, 44))
    hidden = {"visible": False}
    note = {
        "text": lines,
        "showarrow": False,
        "x": 0.5,
        "y": 0.5,
        "xref": "paper",
        "yref": "paper",
        "font": {"color": theme.ink, "size": 14},
    }
    return {
        "data": [],
        "layout": layout(theme, xaxis=hidden, yaxis=hidden, annotations=[note]),
    }


def escaped(text: str) -> str:
    """Text of the database where plotly would read marks such as ``<b>``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
