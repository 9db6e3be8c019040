"""Pictures of how a campaign goes: funnel, learning curves, grades, processor time; all pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hullscreen.launch.dashboard.theme import Theme, escaped, layout, message
from hullscreen.launch.result_tables import duration

# Of 0 structures on a logarithmic axis; left of its beginning, so that there is no bar.
NOTHING = 0.5
# Where a logarithmic axis has numbers.
TICKS = [factor * 10.0**decade for decade in range(-6, 7) for factor in (1, 2, 5)]
LOG: dict[str, Any] = {"type": "log", "tickvals": TICKS}
STAGES = {"1": "screen 1", "2": "screen 2"}
# What the pictures do not say of themselves.
NOTES = {
    "learning": "Lines are root mean square errors on the training set, which holds strained and "
    "unstable structures; σ is the error for relaxed ones outside it.",
    "grades": "Up to 1 the potential interpolates. From “select” on a structure may be labelled "
    "with DFT; at “break” its relaxation waits for more training.",
}

Figure = dict[str, Any]
Plain = Mapping[str, Any]


def funnel_figure(levels: Sequence[Plain], theme: Theme) -> Figure:
    """Structures left after each stage, on a scale that shows 400,000 and 6 alike."""
    known = [level for level in levels if level["n"] is not None]
    most = max([level["n"] for level in known], default=1) or 1
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [level["name"] for level in levels],
                "x": [level["n"] or NOTHING for level in levels],
                "text": [
                    "not decided yet" if level["n"] is None else f"<b>{level['n']:,}</b>"
                    for level in levels
                ],
                "hovertext": [_why(level) for level in levels],
                "hoverinfo": "text",
                "textposition": "auto",
                "cliponaxis": False,
                "marker": {"color": theme.first},
            }
        ],
        "layout": layout(
            theme,
            xaxis={
                "type": "log",
                "title": {"text": "structures", "standoff": 8},
                "range": [_decades(NOTHING), _decades(most) + 0.7],
                "dtick": 1,
            },
            yaxis={"autorange": "reversed", "showgrid": False},
            bargap=0.35,
        ),
    }


def _decades(number: float) -> float:
    from math import log10

    return log10(number)


def _why(level: Plain) -> str:
    reasons = [f"{n:,}: {escaped(str(why))}" for why, n in level["dropped"].items()]
    return "<br>".join([level["name"], *(["left behind", *reasons] if reasons else [])])


def learning_figure(curves: Plain, theme: Theme) -> Figure:
    """Errors of E and F on the training set, σ with its interval, and the size of the set."""
    if not curves["potentials"]:
        return message("no potential is fitted yet", theme)
    data = []
    for stage, colour, symbol in (("1", theme.first, "circle"), ("2", theme.second, "square")):
        fitted = [one for one in curves["potentials"] if str(one["stage"]) == stage]
        for name, axis, dash, words in (
            ("energy_rmse", "y", "solid", "energy"),
            ("force_rmse", "y2", "dash", "forces"),
        ):
            known = [one for one in fitted if one[name] is not None]
            if known:
                line = {
                    "x": [one["number"] for one in known],
                    "y": [1e3 * one[name] for one in known],
                    "yaxis": axis,
                    "line": {"color": colour, "dash": dash},
                }
                data.append(_line(f"{words}, {STAGES[stage]}", symbol, line))
        sigmas = [one for one in curves["sigmas"] if str(one["stage"]) == stage]
        if sigmas:
            data.append(_sigma(sigmas, stage, theme))
    sizes = {
        "x": [one["number"] for one in curves["potentials"]],
        "y": [one["n_training"] for one in curves["potentials"]],
        "yaxis": "y3",
        "line": {"color": theme.third, "shape": "hv"},
    }
    data.append(_line("training set", "triangle-up", sizes))
    return {
        "data": data,
        "layout": layout(
            theme,
            xaxis={"title": {"text": "round", "standoff": 8}, "anchor": "y3", "dtick": _tick(data)},
            yaxis=_axis(theme, "energy error<br>(meV/atom)", [0.68, 1], **LOG),
            yaxis2=_axis(theme, "force error<br>(meV/Å)", [0.34, 0.62], **LOG),
            yaxis3=_axis(theme, "training set<br>(structures)", [0, 0.28], rangemode="tozero"),
            annotations=_gaps(curves["potentials"]),
        ),
    }


def _gaps(potentials: Sequence[Plain]) -> list[Figure]:
    """What stands where lines are missing: errors were not stored from the beginning."""
    gaps = []
    for name, axis in (("energy_rmse", "y"), ("force_rmse", "y2")):
        missing = [one["number"] for one in potentials if one[name] is None]
        if missing:
            rounds = f"rounds {min(missing)} to {max(missing)}" if missing[1:] else "this round"
            gaps.append(
                {
                    "text": f"not recorded by the<br>earlier version that<br>fitted in {rounds}",
                    "x": (min(missing) + max(missing)) / 2,
                    "y": 0.5,
                    "yref": f"{axis} domain",
                    "showarrow": False,
                }
            )
    return gaps


def _line(name: str, symbol: str, values: Plain) -> Figure:
    marker = {"symbol": symbol, "size": 7, "color": values["line"]["color"]}
    hover = "round %{x}: %{y:.4g}<extra>" + name + "</extra>"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "marker": marker,
        "hovertemplate": hover,
        **values,
    }


def _sigma(sigmas: Sequence[Plain], stage: str, theme: Theme) -> Figure:
    """σ with two standard errors either way."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"σ, {STAGES[stage]}",
        "x": [one["round"] for one in sigmas],
        "y": [1e3 * one["sigma"] for one in sigmas],
        "error_y": {
            "type": "data",
            "array": [2e3 * one["uncertainty"] for one in sigmas],
            "color": theme.ink,
        },
        "text": [f"{one['n_structures']} structures" for one in sigmas],
        "hovertemplate": "σ %{y:.2f} ± %{error_y.array:.2f} meV/atom, %{text}<extra></extra>",
        "marker": {"symbol": "star" if stage == "1" else "x", "size": 10, "color": theme.ink},
    }


def _axis(theme: Theme, title: str, domain: list[float], **more: Any) -> Any:
    axis = layout(theme)["yaxis"]
    return {**axis, "title": {"text": title}, "domain": domain, "anchor": "x", **more}


def _tick(data: Sequence[Plain]) -> int:
    """Whole rounds only, about ten of them marked."""
    last = max((x for trace in data for x in trace["x"]), default=0)
    return max(1, round(last / 10))


def grades_figure(histogram: Plain, theme: Theme) -> Figure:
    """How far relaxations had to extrapolate, and the grades at which DFT is asked."""
    if not histogram["stages"]:
        return message("no structure is relaxed by a potential yet", theme)
    colours = {"1": theme.first, "2": theme.second}
    shapes = {"1": "/", "2": ""}
    data = [
        {
            "type": "bar",
            "name": STAGES.get(stage, stage),
            "x": bins["grades"],
            "y": bins["numbers"],
            "width": [grade * 0.2 for grade in bins["grades"]],
            "marker": {
                "color": colours.get(stage, theme.third),
                "pattern": {"shape": shapes.get(stage, "."), "solidity": 0.3},
            },
            "opacity": 0.85,
            "hovertemplate": "grade about %{x:.2g}: %{y:,} structures<extra></extra>",
        }
        for stage, bins in histogram["stages"].items()
    ]
    thresholds = {"select": histogram["select_grade"], "break": histogram["break_grade"]}
    return {
        "data": data,
        "layout": layout(
            theme,
            barmode="overlay",
            xaxis={
                **LOG,
                "title": {"text": "highest extrapolation grade γ", "standoff": 8},
            },
            yaxis={"title": {"text": _of_which(histogram["every"]), "standoff": 8}},
            shapes=[
                {
                    "type": "line",
                    "x0": grade,
                    "x1": grade,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": {"color": theme.ink, "dash": "dot", "width": 1.5},
                }
                for grade in thresholds.values()
            ],
            annotations=[
                {
                    "text": f"{name} {grade:g}",
                    # Where an axis is logarithmic, so are the places of notes.
                    "x": _decades(grade),
                    "y": 1,
                    "yref": "paper",
                    "xanchor": "left",
                    "yanchor": "top",
                    "showarrow": False,
                }
                for name, grade in thresholds.items()
            ],
        ),
    }


def _of_which(every: int) -> str:
    return "structures" if every == 1 else f"structures (from one in {every})"


def cpu_figure(parts: Sequence[Plain], theme: Theme) -> Figure:
    """Where the processor time went."""
    if not parts:
        return message("no processor time is recorded yet", theme)
    total = sum(part["seconds"] for part in parts) or 1.0
    hours = max((part["seconds"] for part in parts), default=0.0) > 36000
    unit = 3600.0 if hours else 1.0
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [escaped(part["part"]) for part in parts],
                "x": [round(part["seconds"] / unit, 4) for part in parts],
                "text": [
                    f"{duration(part['seconds'])} ({part['seconds'] / total:.0%})" for part in parts
                ],
                "textposition": "auto",
                "cliponaxis": False,
                "hoverinfo": "text",
                "marker": {"color": theme.first},
            }
        ],
        "layout": layout(
            theme,
            xaxis={
                "title": {
                    "text": f"processor time ({'h' if hours else 's'})",
                    "standoff": 8,
                },
                # Room for the words at the end of the longest bar.
                "range": [0, 1.6 * max([part["seconds"] / unit for part in parts], default=1.0)],
            },
            yaxis={"autorange": "reversed", "showgrid": False},
            bargap=0.35,
        ),
    }
