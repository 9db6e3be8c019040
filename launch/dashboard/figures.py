"""Which function draws which panel, and what stands there when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hullscreen.launch.dashboard.hull_figures import hull_figure
from hullscreen.launch.dashboard.progress_figures import (
    cpu_figure,
    funnel_figure,
    grades_figure,
    learning_figure,
)
from hullscreen.launch.dashboard.reader import Panel
from hullscreen.launch.dashboard.theme import THEMES, Theme, message

FIGURES: Mapping[str, Callable[[Any, Theme], dict[str, Any]]] = {
    "funnel": funnel_figure,
    "hull": hull_figure,
    "learning": learning_figure,
    "grades": grades_figure,
    "cpu": cpu_figure,
}


def figure_of(name: str, panel: Panel, scheme: str) -> dict[str, Any]:
    """The figure of a panel in one of the `THEMES`, drawn once for all viewers.

    Data that cannot be drawn, such as text where a number belongs, becomes a sentence.
    """
    theme = THEMES[scheme]
    if panel.trouble:
        return message(panel.trouble, theme)

    def draw() -> dict[str, Any]:
        try:
            return FIGURES[name](panel.data, theme)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            sentence = f"this cannot be drawn: {type(error).__name__}: {error}"
            return message(sentence[:300], theme)

    drawn: dict[str, Any] = panel.once(scheme, draw)
    return drawn
