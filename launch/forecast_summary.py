"""A forecast in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hullscreen.launch.result_tables import duration
from hullscreen.launch.worker_numbers import n_cores
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.forecast import forecast
from hullscreen.workflows.pool_survey import Survey


def keep_forecast(campaign: Campaign, found: Survey, n_workers: int, moment: str) -> dict[str, Any]:
    """Make a forecast for local workers, and store it in the campaign's document.

    Parameters
    ----------
    moment
        ``start`` or ``seed``: before the campaign, or when its first labels are there. What was
        foretold first at a moment stays.
    """
    made = forecast(campaign, found, n_workers=n_workers, n_cores=n_cores())
    document = campaign.store.find_campaign()
    if document is not None and moment not in document.get("forecasts", {}):
        campaign.store.set_campaign(**{f"forecasts.{moment}": made})
    return made


def summary(made: Mapping[str, Any]) -> str:
    """What is expected, in one line."""
    numbers = made["calculations"]
    text = (
        f"forecast: {span(numbers['single_points'])} DFT single points and "
        f"{span(numbers['relaxations'])} DFT relaxations"
    )
    cost = made["cost"]
    if cost is None:
        return f"{text}; what they cost, `hullscreen forecast` measures"
    cpu, wall = made["cpu_seconds"]["total"], made["wall_seconds"]["total"]
    workers = "worker" if made["workers"] == 1 else "workers"
    return (
        f"{text}, {time_span(cpu)} of processor time, {time_span(wall)} with "
        f"{made['workers']} {workers}; {basis(cost)}"
    )


def basis(cost: Mapping[str, Any]) -> str:
    """From how many calculations the costs are known, and how well."""
    relaxations = f" and {cost['n_relaxations']} relaxations" if cost["n_relaxations"] else ""
    return (
        f"from {cost['n_single_points']} measured single points{relaxations}, within a factor of "
        f"{cost['factor']:.2g}"
    )


def span(numbers: Mapping[str, float]) -> str:
    """``120 (80 to 200)``, or the number alone if it is known."""
    if numbers["low"] == numbers["high"]:
        return f"{numbers['expected']:,.0f}"
    return f"{numbers['expected']:,.0f} ({numbers['low']:,.0f} to {numbers['high']:,.0f})"


def time_span(seconds: Mapping[str, float]) -> str:
    """``2 h 05 min (1 h 00 min to 4 h 10 min)``."""
    low, expected, high = (duration(seconds[name]) for name in ("low", "expected", "high"))
    return expected if low == high else f"{expected} ({low} to {high})"
