"""How long the rest of a round will take, reckoned from how quickly it went while somebody worked.

Pauses say nothing about speed, so what counts is the time in which at least one step was under way.
Where there is nothing to reckon with, the answer is None: unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

Interval = tuple[datetime, datetime]


def busy_seconds(intervals: Iterable[Interval], since: datetime | None = None) -> float:
    """Time in which at least one of the intervals held, after a moment if one is given, s."""
    total, until = 0.0, since
    for start, end in sorted(intervals):
        begin = start if until is None else max(start, until)
        if end > begin:
            total += (end - begin).total_seconds()
            until = end
    return total


def steps_left_s(
    n_waiting: int, done: Sequence[Interval], begun: Sequence[datetime], now: datetime
) -> float | None:
    """Time until steps of one kind are done, s.

    Parameters
    ----------
    n_waiting
        Steps that nobody has begun.
    done
        When the steps that were completed last were under way.
    begun
        Since when the others are under way.
    """
    if not n_waiting and not begun:
        return 0.0
    if not done:
        return None
    mean = sum((end - start).total_seconds() for start, end in done) / len(done)
    first = min(start for start, _ in done)
    busy = busy_seconds([*done, *((start, now) for start in begun)], first)
    shares = [1.0 - (now - start).total_seconds() / mean if mean else 0.0 for start in begun]
    n_left = n_waiting + sum(share for share in shares if share > 0.0)
    # Nothing but steps that take longer than others did: they may end at any time.
    return n_left * busy / len(done) if n_left else None


def calculations_left_s(n_left: int, n_done: int, busy_s: float) -> float | None:
    """Time until calculations are done, s, if ``n_done`` of them took ``busy_s`` of work."""
    if n_left <= 0:
        return 0.0
    return n_left * busy_s / n_done if n_done and busy_s > 0 else None
