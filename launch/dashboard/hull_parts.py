"""What all pictures of a hull are made of: entries, bins, tie lines, and the words beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hullscreen.launch.dashboard.theme import Theme, escaped
from hullscreen.launch.hull_pictures import with_subscripts
from hullscreen.potentials.structures import FloatArray

# Bins of a few structures and of thousands are all to be seen: diameters in pixels.
SMALLEST_BIN, LARGEST_BIN = 3.0, 13.0
# Higher than this above the hull, one colour, meV/atom.
COLOUR_LIMIT = 100.0
# Of a triangle whose sides are one long: from a point to its label, and the least distances of
# labels beside and above each other.
LABEL_DISTANCE = 0.06
LABEL_GAPS = (0.16, 0.055)
# Of each side of a triangle: the axis along which labels make room, where they lie, and which end
# of a label is next to its point.
SIDES = {
    "left": (1, (-LABEL_DISTANCE, 0.0), "right"),
    "right": (1, (LABEL_DISTANCE, 0.0), "left"),
    "below": (0, (0.0, -LABEL_DISTANCE), "center"),
}

Figure = dict[str, Any]
Plain = Mapping[str, Any]
Entry = dict[str, Any]


def points_of(entries: Sequence[Plain], theme: Theme, hull: Plain, *, stable: bool) -> Figure:
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


def coloured_points(entries: Sequence[Plain], theme: Theme, hull: Plain) -> Figure:
    """Entries above the hull, whose height only a colour can tell; the nearest on top."""
    points = points_of(entries, theme, hull, stable=False)
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


def tie_lines(hull: Plain, theme: Theme, corners: FloatArray) -> Figure:
    """Tie lines as one trace: gaps between them are None."""
    entries = hull["entries"]
    axes = "xyz"[: corners.shape[1]]
    lines: dict[str, list[float | None]] = {axis: [] for axis in axes}
    for start, end in hull["edges"]:
        ends = columns_of([entries[start]["fractions"], entries[end]["fractions"]], corners)
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


def place_in_binary(entries: Sequence[Plain]) -> Figure:
    """Coordinates of entries: fraction of the second element, and meV/atom."""
    return {
        "x": [entry["fractions"][1] for entry in entries],
        "y": [round(1e3 * entry["formation_energy"], 3) for entry in entries],
    }


def place_in(entries: Sequence[Plain], corners: FloatArray) -> Figure:
    """Coordinates of entries in a simplex with these corners."""
    columns = columns_of([entry["fractions"] for entry in entries], corners)
    return dict(zip("xyz", columns, strict=False))


def columns_of(fractions: Sequence[Sequence[float]], corners: FloatArray) -> list[list[float]]:
    """Cartesian places of compositions, one list per axis."""
    places = np.asarray(fractions, dtype=np.float64).reshape(-1, len(corners)) @ corners
    columns: list[list[float]] = np.round(places, 5).T.tolist()
    return columns


def by_composition(background: Plain) -> list[tuple[tuple[float, ...], int]]:
    """Number of binned structures at each composition, whatever their height."""
    counts: dict[tuple[float, ...], int] = {}
    for fractions, n in zip(background["fractions"], background["numbers"], strict=True):
        counts[tuple(fractions)] = counts.get(tuple(fractions), 0) + n
    return sorted(counts.items())


def bin_markers(numbers: Sequence[int], theme: Theme) -> Figure:
    """Markers that grow with the number of structures in a bin."""
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


def said_numbers(numbers: Sequence[int]) -> list[str]:
    """Numbers of structures in words."""
    return [f"{n:,} structure{'' if n == 1 else 's'}" for n in numbers]


def labels_outside(entries: Sequence[Plain], corners: FloatArray, theme: Theme) -> list[Figure]:
    """Annotations with the formulas of entries, outside of the side of the triangle they lie on.

    Where they would cover each other they are moved along that side; a line leads to the point.
    """
    x, y = columns_of([entry["fractions"] for entry in entries], corners)
    sides: dict[str, list[int]] = {"left": [], "right": [], "below": []}
    for i, entry in enumerate(entries):
        sides[_side(entry["fractions"])].append(i)
    labels = []
    for side, (along, towards, anchor) in SIDES.items():
        free = -np.inf
        for i in sorted(sides[side], key=lambda i: (x, y)[along][i]):
            place = [x[i] + towards[0], y[i] + towards[1]]
            place[along] = free = max(place[along], free + LABEL_GAPS[along])
            labels.append(
                {
                    "x": x[i],
                    "y": y[i],
                    "ax": round(place[0], 5),
                    "ay": round(place[1], 5),
                    "axref": "x",
                    "ayref": "y",
                    "text": label_of(entries[i]),
                    "xanchor": anchor,
                    "arrowhead": 0,
                    "arrowwidth": 1,
                    "arrowcolor": theme.faint,
                    "standoff": 5,
                    "captureevents": False,
                }
            )
    return labels


def _side(fractions: Sequence[float]) -> str:
    first, second, third = fractions
    if min(first, third) > second:
        return "left"
    return "right" if min(second, third) > first else "below"


def label_of(entry: Plain) -> str:
    """An entry's formula, as it is printed and harmless."""
    return escaped(with_subscripts(entry["formula"]))


def _hover(entry: Plain) -> str:
    return (
        f"<b>{label_of(entry)}</b> number {entry['index']}<br>{escaped(entry['prototype'])}<br>"
        f"formation energy {1e3 * entry['formation_energy']:.1f} meV/atom<br>"
        f"{1e3 * entry['above']:.1f} meV/atom above the hull"
    ).replace("-", "−")


def is_pure(entry: Plain) -> bool:
    """Whether an entry is an element."""
    return bool(max(entry["fractions"]) > 1.0 - 1e-6)
