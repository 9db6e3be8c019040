"""A crystal in three dimensions: atoms in their elements' colours, bonds of the cell; pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from hullscreen.launch.dashboard.theme import Theme, layout

# Of the campaign's elements, at most four: one has the same colour in all structures.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
# Of the symbols on them, which are light in both schemes.
ON_ATOM = "#10161c"
# Atoms on the cell's faces are drawn on both sides, as crystallographers do; fractional.
ON_FACE = 1e-3

Figure = dict[str, Any]


def crystal_figure(structure: Mapping[str, Any], theme: Theme) -> Figure:
    """Atoms and cell of a structure.

    Parameters
    ----------
    structure
        As `hullscreen.launch.dashboard.structure_data.structure_data` gives it.
    """
    cell = np.array(structure["cell"], dtype=np.float64)
    symbols = structure["symbols"]
    data: list[Figure] = [_edges(cell, theme)]
    places, whose = _with_faces(cell, np.array(structure["positions"], dtype=np.float64))
    for kind, colour in zip(structure["elements"], COLOURS, strict=False):
        mine = [place for place, i in zip(places, whose, strict=True) if symbols[i] == kind]
        if not mine:
            continue
        columns = np.round(np.array(mine), 4).T.tolist()
        data.append(
            {
                "type": "scatter3d",
                "mode": "markers+text",
                "name": kind,
                **dict(zip("xyz", columns, strict=True)),
                "text": [kind] * len(mine),
                "textposition": "middle center",
                "textfont": {"size": 12, "color": ON_ATOM},
                "marker": {
                    "size": 17,
                    "color": colour,
                    "line": {"color": theme.ink, "width": 1},
                },
                "hovertemplate": f"{kind}<br>%{{x:.3f}}, %{{y:.3f}}, %{{z:.3f}} Å<extra></extra>",
            }
        )
    axis = {
        "backgroundcolor": "rgba(0,0,0,0)",
        "gridcolor": theme.grid,
        "zerolinecolor": theme.grid,
        "showspikes": False,
        "nticks": 3,
        "showbackground": False,
        "tickfont": {"size": 10},
    }
    return {
        "data": data,
        "layout": layout(
            theme,
            scene={
                **{
                    f"{name}axis": {**axis, "title": {"text": f"{name} (Å)", "font": {"size": 12}}}
                    for name in "xyz"
                },
                "aspectmode": "data",
                "camera": {"eye": {"x": 1.3, "y": -1.5, "z": 0.75}},
            },
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            uirevision=str(structure["index"]),
        ),
    }


def _edges(cell: Any, theme: Theme) -> Figure:
    """The twelve edges of the cell as one line with gaps."""
    corners = {place: np.array(place) @ cell for place in product((0, 1), repeat=3)}
    lines: dict[str, list[float | None]] = {"x": [], "y": [], "z": []}
    for place, start in corners.items():
        for axis in range(3):
            if place[axis] == 0:
                end = start + cell[axis]
                for name, a, b in zip("xyz", start, end, strict=True):
                    lines[name] += [round(float(a), 4), round(float(b), 4), None]
    return {
        "type": "scatter3d",
        "mode": "lines",
        "name": "cell",
        **lines,
        "line": {"color": theme.faint, "width": 4},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _with_faces(cell: Any, positions: Any) -> tuple[list[Any], list[int]]:
    """Positions in Å and whose they are, images on the far faces, edges and corners included."""
    fractional = np.linalg.solve(cell.T, positions.T).T
    places, whose = [], []
    for i, place in enumerate(fractional):
        near = [(0, 1) if abs(x) < ON_FACE else (0,) for x in place]
        for shift in product(*near):
            places.append((place + np.array(shift)) @ cell)
            whose.append(i)
    return places, whose
