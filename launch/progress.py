"""Progress of long work, on stderr: bars on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0


class Board(Protocol):
    """Where work reports how far it is; each kind of work has a name."""

    def show(self, name: str, done: int, total: int | None, left_s: float | None = None) -> None:
        """Say that ``done`` of ``total`` are done; ``total`` None while it is not known.

        ``left_s`` is the time that the rest will take, s; None: as the part before did.
        """

    def note(self, sentence: str) -> None:
        """Say something once: a stage that ended, a job that failed."""


@dataclass(slots=True)
class _Row:
    """What a line-by-line board remembers of one kind of work."""

    started_s: float
    done_at_start: int
    last_line_s: float
    last_text: str = ""


@dataclass(slots=True)
class LineBoard:
    """A plain line per kind of work, at most every :data:`SECONDS_BETWEEN_LINES`, and at its end.

    Attributes
    ----------
    write
        Takes each line, without its end.
    clock
        Seconds that only grow.
    """

    write: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    rows: dict[str, _Row] = field(default_factory=dict)

    def show(self, name: str, done: int, total: int | None, left_s: float | None = None) -> None:
        """Write a line if this work is new, finished, or was silent for long enough."""
        now = self.clock()
        row = self.rows.get(name)
        new = row is None
        if row is None:
            row = self.rows[name] = _Row(now, done, now)
        ended = total is not None and done >= total
        if not (new or ended or now - row.last_line_s >= SECONDS_BETWEEN_LINES):
            return
        text = _line(name, done, total, row, now, left_s)
        # An ended work that is shown again says nothing new.
        if text != row.last_text:
            self.write(text)
            row.last_line_s, row.last_text = now, text

    def note(self, sentence: str) -> None:
        """Write the sentence."""
        self.write(sentence)


def _line(
    name: str, done: int, total: int | None, row: _Row, now: float, left_s: float | None
) -> str:
    if total is None:
        return f"{name}: {done:,}"
    text = f"{name}: {done:,} of {total:,}"
    elapsed, new = now - row.started_s, done - row.done_at_start
    if done >= total:
        return text
    if new > 0 and elapsed > 0:
        rate = new / elapsed
        text += f", {_rate(rate)}"
        left_s = (total - done) / rate if left_s is None else left_s
    return text if left_s is None else f"{text}, {_duration(left_s)} left"


def _rate(per_second: float) -> str:
    """A rate in the unit that gives a number to read."""
    if per_second >= 1:
        return f"{per_second:,.0f}/s"
    return f"{per_second * 60:.1f}/min" if per_second * 60 >= 1 else f"{per_second * 3600:.1f}/h"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class _RateColumn(ProgressColumn):
    """Work per time, from rich's running estimate."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed) if speed else "", style="progress.data.speed")


class _LeftColumn(TimeRemainingColumn):
    """The time that the rest will take, if the work knows it better than rich."""

    def render(self, task: Task) -> Text:
        left_s = task.fields.get("left_s")
        if left_s is None or task.finished:
            return super().render(task)
        return Text(_duration(left_s), style="progress.remaining")


@dataclass(slots=True)
class BarBoard:
    """A bar per kind of work, by rich."""

    progress: RichProgress
    bars: dict[str, TaskID] = field(default_factory=dict)

    def show(self, name: str, done: int, total: int | None, left_s: float | None = None) -> None:
        """Move the bar of this work, or add it."""
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name, total=total)
        self.progress.update(self.bars[name], completed=done, total=total, left_s=left_s)

    def note(self, sentence: str) -> None:
        """Print the sentence above the bars."""
        self.progress.console.print(sentence, markup=False, highlight=False)


@contextmanager
def progress_board() -> Iterator[Board]:
    """Board for this process's stderr; stdout is left to results.

    Examples
    --------
    >>> with progress_board() as board:
    ...     board.show("prototypes", done=10, total=1595)
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LineBoard(
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
        )
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        _LeftColumn(),
    )
    with RichProgress(*columns, console=console, redirect_stdout=False) as bars:
        yield BarBoard(bars)
