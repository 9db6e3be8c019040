"""One reader per campaign, which all viewers share: ten viewers cost the database what one costs.

A thread reads the database and rests long after every look, so that a campaign hardly notices it.
What it has read last is what every viewer gets, also while the database is away.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection
from hullscreen.launch.dashboard.hull_data import hull_data, stable_data
from hullscreen.launch.dashboard.job_data import (
    failed_calculations,
    failure_rows,
    jobs_data,
    quick_look,
)
from hullscreen.launch.dashboard.learning_data import (
    cpu_parts,
    funnel_levels,
    grade_histogram,
    learning_curves,
)
from hullscreen.launch.going_on import what_is_due
from hullscreen.potentials.errors import DatabaseError, HullscreenError
from hullscreen.workflows.campaign_status import campaign_status

# Between two looks at the numbers that always move.
QUICK_REST_S = 2.0
# A look at everything takes seconds at 400,000 structures; the thread rests so many times as long.
REST_AFTER_LOOKING = 50.0
# A database that has not answered for so long is away.
AWAY_AFTER_S = 10.0
LONGEST_TROUBLE = 300

Plain = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Attributes
    ----------
    data
        Plain data, None where there is none.
    trouble
        Why there is none, one sentence.
    version
        Of the data: equal versions look equal.
    drawn
        What was made of the data, by kind; made once for all viewers.
    """

    data: Any
    trouble: str
    version: str
    drawn: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, kind: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, from memory if it was made before."""
        if kind not in self.drawn:
            self.drawn[kind] = make()
        return self.drawn[kind]


def panel_of(make: Callable[[], Any]) -> Panel:
    """A panel of what ``make`` reads; documents that are not as they should be only spoil it.

    Raises
    ------
    DatabaseError
        The server is away: no panel can be read.
    """
    try:
        data = make()
        text = json.dumps(data, sort_keys=True, default=str)
    except DatabaseError:
        raise
    except HullscreenError as error:
        return _without(str(error))
    except Exception as error:  # noqa: BLE001 - whatever spoils a panel, the others live
        return _without(
            "this cannot be shown, for the database holds something unexpected "
            f"({type(error).__name__}: {error})"
        )
    return Panel(data, "", hashlib.sha256(text.encode()).hexdigest()[:16])


def _without(sentence: str) -> Panel:
    trouble = sentence[:LONGEST_TROUBLE]
    return Panel(None, trouble, hashlib.sha256(trouble.encode()).hexdigest()[:16])


@dataclass(frozen=True)
class Snapshot:
    """A campaign as it was seen last.

    Attributes
    ----------
    campaign
        Its name.
    panels
        By name: ``jobs``, ``funnel``, ``hull``, ``learning``, ``grades``, ``cpu``, ``failures``,
        ``stable``, and the numbers of ``status``.
    seen_at
        When the database answered last; None before the first time.
    asked_at
        Since when it has been asked without an answer; None between two looks.
    trouble
        What the database said instead, one sentence.
    """

    campaign: str
    panels: Mapping[str, Panel] = field(default_factory=dict)
    seen_at: datetime | None = None
    asked_at: datetime | None = None
    trouble: str = ""

    def is_old(self, now: datetime) -> bool:
        """Whether the database has not answered for so long that viewers should know."""
        waited = now - self.asked_at if self.asked_at is not None else timedelta(0)
        return waited.total_seconds() > AWAY_AFTER_S


@dataclass
class CampaignReader:
    """The thread that reads one campaign.

    Attributes
    ----------
    store, connection, directory
        The campaign.
    """

    store: CampaignStore
    connection: Connection
    directory: Path
    _snapshot: Snapshot = field(init=False)
    _slow: Plain = field(default_factory=dict)
    _next_slow: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._snapshot = Snapshot(self.store.name)

    @property
    def snapshot(self) -> Snapshot:
        """What was seen last; never waits."""
        return self._snapshot

    def start(self) -> None:
        """Begin to read, in the background."""
        name = f"reader of {self.store.name}"
        self._thread = threading.Thread(target=self._read_on, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; a look that waits for a server that is away is left to end by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=QUICK_REST_S)

    def _read_on(self) -> None:
        while not self._stop.is_set():
            rest_s = QUICK_REST_S
            try:
                rest_s = max(rest_s, REST_AFTER_LOOKING * self.look())
            except DatabaseError as error:
                self._snapshot = replace(self._snapshot, trouble=str(error))
            self._stop.wait(rest_s)

    def look(self, *, everything: bool = False) -> float:
        """Read the numbers that move, and what is slow to read if it is time for that.

        Returns
        -------
        How long the numbers took, s.

        Raises
        ------
        DatabaseError
            The server is away; the snapshot stays, and tells since when it is asked.
        """
        began = time.monotonic()
        if self._snapshot.asked_at is None:
            self._snapshot = replace(self._snapshot, asked_at=datetime.now(UTC))
        quick = panel_of(lambda: quick_look(self.store, self.connection))
        took_s = time.monotonic() - began
        if everything or time.monotonic() >= self._next_slow:
            began = time.monotonic()
            self._slow = self._look_slowly()
            ended = time.monotonic()
            self._next_slow = ended + REST_AFTER_LOOKING * (ended - began)
        status = self._slow["status"].data or {}
        dft = self._slow["failed_dft"].data or []
        slow = {"left_s": status.get("left_s"), "due": self._slow["due"].data}
        fresh = {
            "quick": _after(quick, lambda seen: {**seen, **slow}),
            "jobs": _after(quick, lambda seen: jobs_data(seen, status)),
            "failures": _after(quick, lambda seen: failure_rows(seen, status, dft)),
        }
        panels = self._kept({**self._slow, **fresh})
        self._snapshot = Snapshot(self.store.name, panels, datetime.now(UTC), trouble=quick.trouble)
        return took_s

    def _answered(self, panel: Panel) -> Panel:
        """A panel that was just read: the database is there, however long all of it takes."""
        self._snapshot = replace(self._snapshot, asked_at=datetime.now(UTC))
        return panel

    def _look_slowly(self) -> dict[str, Panel]:
        store, connection = self.store, self.connection
        readings: dict[str, Callable[[], Any]] = {
            "status": lambda: campaign_status(store, connection),
            "due": lambda: what_is_due(store, self.directory),
            "hull": lambda: hull_data(store),
            "learning": lambda: learning_curves(store),
            "grades": lambda: grade_histogram(store),
            "cpu": lambda: cpu_parts(store),
            "failed_dft": lambda: failed_calculations(store),
        }
        panels = {name: self._answered(panel_of(read)) for name, read in readings.items()}
        stable = _after(panels["hull"], stable_data)
        funnel = panel_of(lambda: funnel_levels(store, stable.data))
        return {**panels, "stable": stable, "funnel": funnel}

    def _kept(self, panels: Mapping[str, Panel]) -> dict[str, Panel]:
        """The panels, the old object where nothing changed: it knows its pictures."""
        old = self._snapshot.panels
        return {
            name: old[name] if name in old and old[name].version == panel.version else panel
            for name, panel in panels.items()
        }


def _after(source: Panel, make: Callable[[Any], Any]) -> Panel:
    return _without(source.trouble) if source.trouble else panel_of(lambda: make(source.data))


def seen_now(store: CampaignStore, connection: Connection) -> Snapshot:
    """A campaign as it is now, all panels read.

    Raises
    ------
    DatabaseError
        The server is away.
    """
    reader = CampaignReader(store, connection, Path(store.name))
    reader.look(everything=True)
    return reader.snapshot


class CampaignReaders:
    """Readers of several campaigns.

    Parameters
    ----------
    campaigns
        Store, connection and directory of each; their names differ.

    Attributes
    ----------
    by_name
        The readers, by the names of their campaigns.
    """

    def __init__(self, campaigns: Iterable[tuple[CampaignStore, Connection, Path]]) -> None:
        self.by_name = {
            store.name: CampaignReader(store, connection, directory)
            for store, connection, directory in campaigns
        }
        for reader in self.by_name.values():
            reader.start()

    @property
    def names(self) -> list[str]:
        """Names of the campaigns, in the order given."""
        return list(self.by_name)

    def close(self) -> None:
        """End all threads."""
        for reader in self.by_name.values():
            reader.close()
