"""Pictures of the hull: a curve for two elements, a triangle for three, a tetrahedron for four.

All functions are pure: plain data in, a figure as plotly's JSON out. A point's ``customdata`` is
the number of its structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hullscreen.launch.dashboard.hull_data import lowest_stable
from hullscreen.launch.dashboard.theme import Theme, escaped, layout
from hullscreen.launch.hull_pictures import with_subscripts
from hullscreen.potentials.structures import FloatArray

TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
TETRAHEDRON = np.array(
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.75**0.5, 0.0], [0.5, 0.75**0.5 / 3, (2 / 3) ** 0.5]]
)
# Of the elements' symbols from the corners of the triangle, pixels.
OF_CORNERS = ((-16, -12), (16, -12), (0, 16))
# Bins of a few structures and of thousands are all to be seen: diameters in pixels.
SMALLEST_BIN, LARGEST_BIN = 3.0, 13.0
# Higher than this above the hull, one colour, meV/atom.
COLOUR_LIMIT = 100.0

Figure = dict[str, Any]
Plain = Mapping[str, Any]
Entry = dict[str, Any]


def hull_figure(hull: Plain, theme: Theme) -> Figure:
    """The hull of two, three or four elements.

    Parameters
    ----------
    hull
        As `hullscreen.launch.dashboard.hull_data.hull_data` gives it.
    """
    drawers = {2: _binary, 3: _ternary, 4: _quaternary}
    return drawers[len(hull["elements"])](hull, theme)


def _binary(hull: Plain, theme: Theme) -> Figure:
    first, second = hull["elements"]
    entries, background = hull["entries"], hull["background"]
    stable, others = _parted(entries)
    corners = sorted({place for edge in hull["edges"] for place in edge})
    line = sorted((entries[place]["fractions"][1], entries[place]) for place in corners)
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "relaxed by the potential",
            "x": [fractions[1] for fractions in background["fractions"]],
            "y": [1e3 * energy for energy in background["energies"]],
            "text": _numbers(background["numbers"]),
            "marker": _binned(background["numbers"], theme),
            "hovertemplate": "%{text}<br>about %{y:.0f} meV/atom<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "hull",
            "x": [x for x, _ in line],
            "y": [1e3 * entry["formation_energy"] for _, entry in line],
            "line": {"color": theme.first, "width": 2},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        _points(others, theme, hull, stable=False) | _place_in_binary(others),
        _points(stable, theme, hull, stable=True)
        | _place_in_binary(stable)
        | {
            "mode": "markers+text",
            "cliponaxis": False,
            "text": [_label(entry) for entry in stable],
            "textposition": "bottom center",
        },
    ]
    depth = min((1e3 * entry["formation_energy"] for entry in entries), default=-10.0)
    title = f"fraction of {second} in {first}–{second}"
    return {
        "data": data,
        "layout": layout(
            theme,
            xaxis={"title": {"text": title, "standoff": 8}, "range": [-0.04, 1.04]},
            yaxis={
                "title": {"text": "formation energy (meV/atom)", "standoff": 8},
                # As far above zero as half the hull's depth, and room for labels below.
                "range": [1.22 * depth - 2.0, max(-0.6 * depth, 10.0)],
            },
            hovermode="closest",
        ),
    }


def _ternary(hull: Plain, theme: Theme) -> Figure:
    entries, background = hull["entries"], hull["background"]
    stable, others = _parted(entries)
    spread = _by_composition(background)
    x, y = _columns([place for place, _ in spread], TRIANGLE)
    numbers = [n for _, n in spread]
    outline = _columns([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], TRIANGLE)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": outline[0],
            "y": outline[1],
            "line": {"color": theme.ink, "width": 1.5},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "relaxed by the potential",
            "x": x,
            "y": y,
            "text": _numbers(numbers),
            "marker": _binned(numbers, theme),
            "hovertemplate": "%{text}<extra></extra>",
        },
        _tie_lines(hull, theme, TRIANGLE),
        _coloured(others, theme, hull) | _place_in(others, TRIANGLE),
        _points(stable, theme, hull, stable=True)
        | _place_in(stable, TRIANGLE)
        | {
            "mode": "markers+text",
            "cliponaxis": False,
            "text": ["" if _is_pure(entry) else _label(entry) for entry in stable],
            "textposition": [_outwards(entry["fractions"]) for entry in stable],
        },
    ]
    corners = [
        {
            "x": float(corner[0]),
            "y": float(corner[1]),
            "xshift": shift[0],
            "yshift": shift[1],
            "text": f"<b>{escaped(symbol)}</b>",
            "showarrow": False,
            "font": {"size": 16, "color": theme.ink},
        }
        for symbol, corner, shift in zip(hull["elements"], TRIANGLE, OF_CORNERS, strict=True)
    ]
    return {
        "data": data,
        "layout": layout(
            theme,
            xaxis={"visible": False, "range": [-0.13, 1.13]},
            yaxis={"visible": False, "range": [-0.1, 0.98], "scaleanchor": "x"},
            annotations=corners,
            hovermode="closest",
        ),
    }


def _quaternary(hull: Plain, theme: Theme) -> Figure:
    entries = hull["entries"]
    stable, others = _parted(entries)
    corners = {i for facet in hull["facets"] for i in facet}
    order = sorted(corners)
    places = _columns([entries[i]["fractions"] for i in order], TETRAHEDRON)
    number = {i: place for place, i in enumerate(order)}
    faces = sorted(
        {
            tuple(sorted(number[i] for k, i in enumerate(facet) if k != left))
            for facet in hull["facets"]
            for left in range(4)
        }
    )
    data: list[Figure] = [
        {
            "type": "mesh3d",
            **dict(zip("xyz", places, strict=True)),
            **{name: [face[k] for face in faces] for k, name in enumerate("ijk")},
            "color": theme.first,
            "opacity": 0.03,
            "hoverinfo": "skip",
            "name": "faces",
            "showlegend": False,
        },
        _tie_lines(hull, theme, TETRAHEDRON),
        _coloured(others, theme, hull) | _place_in(others, TETRAHEDRON),
        _points(stable, theme, hull, stable=True)
        | _place_in(stable, TETRAHEDRON)
        | {
            "mode": "markers+text",
            "text": [_label(entry) for entry in stable],
            "textposition": "top center",
        },
    ]
    for trace in data[1:]:
        trace["type"] = "scatter3d"
        if "marker" in trace:
            # WebGL draws markers about twice as large as SVG does.
            trace["marker"]["size"] /= 2
    axis = {"visible": False, "showspikes": False}
    return {
        "data": data,
        "layout": layout(
            theme,
            scene={
                "xaxis": axis,
                "yaxis": axis,
                "zaxis": axis,
                "aspectmode": "data",
                "camera": {
                    "eye": {"x": 0.45, "y": -1.75, "z": 0.45},
                    "center": {"x": 0.0, "y": 0.0, "z": -0.08},
                },
            },
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            # A picture that a viewer has turned stays so when it is brought up to date.
            uirevision="hull",
        ),
    }


def _parted(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The lowest entry of each stable composition, and all others."""
    stable = lowest_stable(entries)
    chosen = {entry["index"] for entry in stable}
    return stable, [entry for entry in entries if entry["index"] not in chosen]


def _points(entries: Sequence[Plain], theme: Theme, hull: Plain, *, stable: bool) -> Figure:
    """Entries of one kind; colour and shape both tell which."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{hull['energies']}, {'on' if stable else 'above'} the hull",
        "customdata": [entry["index"] for entry in entries],
        "hovertext": [_hover(entry) for entry in entries],
        "hoverinfo": "text",
        "marker": {
            "color": theme.first if stable else theme.second,
            "symbol": "circle" if stable else "diamond-open",
            "size": 11 if stable else 8,
            "line": {"color": theme.paper if stable else theme.second, "width": 1.5},
        },
    }


def _coloured(entries: Sequence[Plain], theme: Theme, hull: Plain) -> Figure:
    """Entries above the hull, whose height only a colour can tell; the nearest on top."""
    points = _points(entries, theme, hull, stable=False)
    points["marker"] = {
        "color": [1e3 * entry["above"] for entry in entries],
        "colorscale": [list(step) for step in theme.scale],
        "cmin": 0.0,
        "cmax": min(max((1e3 * entry["above"] for entry in entries), default=1.0), COLOUR_LIMIT)
        or 1.0,
        "symbol": "diamond",
        "size": 7,
        "line": {"color": theme.faint, "width": 0.5},
        "colorbar": {
            "title": {"text": "above the hull (meV/atom)", "side": "bottom"},
            "orientation": "h",
            "y": 0,
            "yanchor": "top",
            "thickness": 10,
            "len": 0.6,
            "outlinewidth": 0,
            "nticks": 5,
        },
    }
    return points


def _tie_lines(hull: Plain, theme: Theme, corners: FloatArray) -> Figure:
    """Tie lines as one trace: gaps between them are None."""
    entries = hull["entries"]
    axes = "xyz"[: corners.shape[1]]
    lines: dict[str, list[float | None]] = {axis: [] for axis in axes}
    for start, end in hull["edges"]:
        ends = _columns([entries[start]["fractions"], entries[end]["fractions"]], corners)
        for axis, values in zip(axes, ends, strict=True):
            lines[axis] += [*values, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "tie lines",
        **lines,
        "line": {"color": theme.first, "width": 1.5 if len(axes) == 2 else 2},
        "hoverinfo": "skip",
    }


def _place_in_binary(entries: Sequence[Plain]) -> Figure:
    return {
        "x": [entry["fractions"][1] for entry in entries],
        "y": [round(1e3 * entry["formation_energy"], 3) for entry in entries],
    }


def _place_in(entries: Sequence[Plain], corners: FloatArray) -> Figure:
    columns = _columns([entry["fractions"] for entry in entries], corners)
    return dict(zip("xyz", columns, strict=False))


def _columns(fractions: Sequence[Sequence[float]], corners: FloatArray) -> list[list[float]]:
    """Cartesian places of compositions, one list per axis."""
    places = np.asarray(fractions, dtype=np.float64).reshape(-1, len(corners)) @ corners
    columns: list[list[float]] = np.round(places, 5).T.tolist()
    return columns


def _by_composition(background: Plain) -> list[tuple[tuple[float, ...], int]]:
    """Number of binned structures at each composition, whatever their height."""
    counts: dict[tuple[float, ...], int] = {}
    for fractions, n in zip(background["fractions"], background["numbers"], strict=True):
        counts[tuple(fractions)] = counts.get(tuple(fractions), 0) + n
    return sorted(counts.items())


def _binned(numbers: Sequence[int], theme: Theme) -> Figure:
    most = max([*numbers, 10])
    sizes = SMALLEST_BIN + (LARGEST_BIN - SMALLEST_BIN) * np.log10(
        np.maximum(numbers, 1.0)
    ) / np.log10(most)
    return {
        "size": np.round(sizes, 1).tolist(),
        "color": theme.faint,
        "opacity": 0.55,
        "line": {"width": 0},
    }


def _numbers(numbers: Sequence[int]) -> list[str]:
    return [f"{n:,} structure{'' if n == 1 else 's'}" for n in numbers]


def _outwards(fractions: Sequence[float]) -> str:
    """Where a label has room in a triangle: outside of the side that its point lies on."""
    first, second, third = fractions
    if min(first, third) > second:
        return "middle left"
    return "middle right" if min(second, third) > first else "bottom center"


def _label(entry: Plain) -> str:
    return escaped(with_subscripts(entry["formula"]))


def _hover(entry: Plain) -> str:
    return (
        f"<b>{_label(entry)}</b> number {entry['index']}<br>{escaped(entry['prototype'])}<br>"
        f"formation energy {1e3 * entry['formation_energy']:.1f} meV/atom<br>"
        f"{1e3 * entry['above']:.1f} meV/atom above the hull"
    ).replace("-", "−")


def _is_pure(entry: Plain) -> bool:
    return bool(max(entry["fractions"]) > 1.0 - 1e-6)
