"""What `hullscreen status` shows: progress, steps by kind of worker, who is at it, what failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from hullscreen.launch.going_on import command_line
from hullscreen.launch.result_tables import clock, duration, result_table
from hullscreen.launch.workers_display import workers_display

Status = Mapping[str, Any]

# What is counted of the steps of a category, and the words of a person; the order of the columns.
COUNTED = {
    "waiting": "waiting",
    "ready": "ready",
    "running": "running",
    "lost": "lost",
    "failed": "failed",
    "done": "done",
}
BAD = {"lost", "failed"}
# States of FireWorks that only its own commands bring about; shown where there are any.
OTHER_STATES = {
    "RESERVED": "in queue",
    "PAUSED": "paused by lpad",
    "DEFUSED": "defused by lpad",
    "ARCHIVED": "archived",
}
WORK = {
    "prototypes": "prototypes written",
    "dft_single_points": "DFT single points",
    "relaxations": "structures relaxed with the potential",
    "dft_relaxations": "DFT relaxations",
}
PURPOSES = {
    "seed": "first training structures and first wave",
    "learn": "learning while it relaxes",
    "validate": "measuring the potential's error",
    "refine": "labelling the most promising structures",
    "final": "DFT relaxations of what may be stable",
}
REASONS_SHOWN = 10
LONGEST_REASON = 160
# Of a number that nobody can know.
UNKNOWN = "—"
INDENT = (0, 0, 0, 2)


def status_display(
    status: Status, directory: Path, *, folds: bool, seen_at: datetime | None = None
) -> Group:
    """Everything, for a console.

    Parameters
    ----------
    status
        As `hullscreen.workflows.campaign_status.campaign_status` gives it.
    directory
        The campaign's, as the user named it.
    folds
        Whether long cells are folded; not where other programs read the lines.
    seen_at
        When it was so; said where it will be looked at again.
    """
    rests = status["finished"] and not _has_work(status)
    return Group(
        *_headline(status, directory),
        *(_summary(status) if rests else _steps(status, folds=folds)),
        *(() if rests else _speed(status)),
        *(() if rests else workers_display(status, folds=folds)),
        *_failures(status, directory, folds=folds),
        *_remarks(status, directory),
        Text(_next(status, directory)),
        *([] if seen_at is None else [Text(f"As of {clock(seen_at)}.", style="dim")]),
    )


def _headline(status: Status, directory: Path) -> Iterator[RenderableType]:
    name = Text(f"{status['campaign']} ({'–'.join(status['elements'])})", style="bold")
    if status["finished"]:
        yield name + Text(": finished", style="not bold")
    elif status["round"] is None:
        yield name + Text(": generating prototypes", style="not bold")
    else:
        stage = status["stage"].replace("_", " ")
        words = f": {stage}, round {status['round']}, {PURPOSES[status['purpose']]}"
        yield name + Text(words, style="not bold")
    for mark, meaning in (
        ("paused", "workers finish what they hold and take nothing new"),
        ("cancelled", "workers end, and what was computed is kept"),
    ):
        if status[mark]:
            yield Text(mark.upper(), style="bold yellow") + Text(
                f": {meaning}; `hullscreen resume {directory}` lets it go on", style="not bold"
            )
    if status["finished"]:
        return
    for kind, counts in status["progress"].items():
        of = f" of {counts['total']:,}" if counts["total"] is not None else ""
        said = f"{WORK[kind]}: {counts['done']:,}{of}{_some_of_them(counts)}"
        yield Padding(Text(said), INDENT, expand=False)


def _some_of_them(counts: Mapping[str, Any]) -> str:
    waiting, failed = counts.get("extrapolating", 0), counts.get("failed", 0)
    said = f", {waiting:,} of them wait for the next potential" if waiting else ""
    return f"{said}, {failed:,} of them failed" if failed else said


def _summary(status: Status) -> Iterator[RenderableType]:
    """Of a finished campaign what it has found, and how long it took."""
    n = status.get("n_stable")
    parts = [] if n is None else [f"{n:,} stable phase{'s' * (n != 1)}"]
    steps = status["steps"].values()
    n_done, n_failed = (sum(step[kind] for step in steps) for kind in ("done", "failed"))
    parts.append(f"{n_done:,} steps" + (f", {n_failed:,} more failed" if n_failed else ""))
    if status["took_s"] is not None:
        parts.append(f"{duration(status['took_s'])} from its start to the end of the last step")
    yield Padding(Text("; ".join(parts)), INDENT, expand=False)


def _steps(status: Status, *, folds: bool) -> Iterator[RenderableType]:
    if not status["steps"]:
        return
    others = {
        state: words
        for state, words in OTHER_STATES.items()
        if any(counts.get(state) for counts in status["fireworks"].values())
    }
    rows = [
        [
            category,
            *(_number(kind, step[kind]) for kind in COUNTED),
            *(status["fireworks"].get(category, {}).get(state, 0) for state in others),
            f"{step['per_hour']:,.0f}" if step["per_hour"] else None,
            _time_left(step["left_s"]),
        ]
        for category, step in status["steps"].items()
    ]
    yield Text()
    yield Text("Steps by kind of worker", style="bold")
    words = [*COUNTED.values(), *others.values(), "per hour", "left"]
    yield result_table(["", *(f"{word}>" for word in words)], rows, folds=folds)
    yield Text()


def _number(kind: str, n: int) -> Text | int:
    return Text(f"{n:,}", style="bold red") if kind in BAD and n else n


def _time_left(seconds: float | None) -> str | None:
    if seconds is None:
        return UNKNOWN
    return about(seconds) if seconds else None


def about(seconds: float) -> str:
    """A time that is reckoned, no finer than it can be known.

    Examples
    --------
    >>> about(40.0), about(4000.0)
    ('1 min', '1 h 07 min')
    """
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min"
    return duration(60.0 * round(seconds / 60))


def _has_work(status: Status) -> bool:
    """Whether steps are to be done: a finished campaign may have some that run once more."""
    kinds = ("waiting", "ready", "running", "lost")
    return any(step[kind] for step in status["steps"].values() for kind in kinds)


def _speed(status: Status) -> Iterator[Text]:
    if status["finished"] and not _has_work(status):
        return
    per_minute = status["dft_evaluations_per_minute"]
    if per_minute:
        hour = "in the last hour" if status["rate_window_s"] >= 3600.0 else "since the start"
        yield Text(f"DFT: {per_minute:,.3g} evaluations per minute {hour}.")
    left_s = status["left_s"]
    if left_s:
        yield Text(f"This round ends in about {about(left_s)}, at the speed so far.")
    if n := status["n_reclaimed"]:
        were = "steps were" if n > 1 else "step was"
        yield Text(f"{n:,} {were} taken back from workers that were lost, and done by others.")


def _failures(status: Status, directory: Path, *, folds: bool) -> Iterator[RenderableType]:
    groups = status["failure_groups"]
    if not groups:
        return
    shown = groups[:REASONS_SHOWN]
    yield Text()
    yield Text(_title(status, groups), style="bold")
    yield result_table(
        ["steps>", "kind", "such as>", "reason"],
        [
            (
                group["count"], group["category"], str(group["example"]),
                _shortened(group["reason"]) if folds else group["reason"],
            )
            for group in shown
        ],
        folds=folds,
    )  # fmt: skip
    yield Text()
    yield from (Text(line) for line in _advice(status, groups, directory))


def _title(status: Status, groups: list[dict[str, Any]]) -> str:
    known, n = sum(group["count"] for group in groups), status["n_failed"]
    title = f"Failed steps by reason, the newest {known:,} of {n:,}"
    return title if known < n else "Failed steps by reason"


def _shortened(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"


def _advice(status: Status, groups: list[dict[str, Any]], directory: Path) -> Iterator[str]:
    """What to do about failures, a line for each kind."""
    again = _to_go_on(status, directory)
    yield (
        f"`hullscreen logs {directory} --firework {groups[0]['example']}` shows the first one's "
        "calculations and the ends of their files."
    )
    lasting = {group["category"] for group in groups if not group["passes"]}
    if any(group["passes"] for group in groups):
        yield f"What is not the step's own fault is tried again by `{again}`."
    if "dft" in lasting:
        yield (
            "Structures whose DFT failed are left out; "
            f"`hullscreen rerun {directory} --failed` computes them once more."
        )
    if lasting - {"dft"}:
        yield (
            "The campaign cannot do without the other steps: mend the cause, then "
            f"`{again}` tries them again."
        )


def _remarks(status: Status, directory: Path) -> Iterator[Text]:
    if status["due"]:
        yield Text(status["due"])
    if status["n_quarantined"]:
        yield Text(
            f"DFT results that cannot be right and were put aside: {status['n_quarantined']}; "
            f"`hullscreen labels {directory} --quarantined` lists them."
        )
    for number, doubt in status["doubts"].items():
        yield Text(f"Round {number}: {doubt}.")


def _is_launched(status: Status) -> bool:
    """Whether the campaign's work is done through a queue."""
    supervisor = status["supervisor"]
    return supervisor["command"] == "launch" if supervisor else bool(status["jobs"])


def _to_go_on(status: Status, directory: Path) -> str:
    supervisor = status["supervisor"]
    if supervisor is None:
        return command_line("launch" if status["jobs"] else "run", (), directory)
    return command_line(supervisor["command"], supervisor["options"], directory)


def _next(status: Status, directory: Path) -> str:
    if status["finished"]:
        more = f"; steps run once more: {_to_go_on(status, directory)}" if _has_work(status) else ""
        return f"The hull: hullscreen hull {directory}{more}"
    if status["paused"] or status["cancelled"]:
        return f"To go on: hullscreen resume {directory}"
    if said := _unattended(status, directory):
        return said
    if status["stage"] == "final":
        return f"The hull so far: hullscreen hull {directory}"
    return f"To look on: hullscreen status {directory} --watch"


def _unattended(status: Status, directory: Path) -> str:
    """What is to be said where no step or no supervisor is at work; else nothing."""
    supervisor, n_workers = status["supervisor"], status["workers"]["alive"]
    if not (supervisor and supervisor["alive"]):
        if _is_launched(status):
            return (
                "No `hullscreen launch` is at work: new jobs come only while it runs; "
                f"`{_to_go_on(status, directory)}` goes on."
            )
        return "" if n_workers else f"To go on: {_to_go_on(status, directory)}"
    if n_workers:
        return ""
    if status["jobs"] and all(job["state"] == "waiting" for job in status["jobs"]):
        return "Jobs wait in the queue."
    return (
        f"`hullscreen {supervisor['command']}` is at work on {supervisor['host']} (process "
        f"{supervisor['pid']})."
    )
