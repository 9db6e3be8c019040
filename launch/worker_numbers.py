"""How many processes a campaign is given on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hullscreen.workflows.forecast import processes_of
from hullscreen.workflows.settings_tree import Settings


@dataclass(frozen=True)
class WorkerNumbers:
    """Local processes.

    Attributes
    ----------
    workers
        That do everything, or all but DFT if there are some for DFT.
    dft_workers
        For DFT alone; 0: all do everything.
    processes
        Of one DFT calculation.
    """

    workers: int
    dft_workers: int
    processes: int

    @property
    def at_dft(self) -> int:
        """Workers that do DFT."""
        return self.dft_workers or self.workers

    @property
    def warning(self) -> str:
        """What is wrong with these numbers; empty if nothing is."""
        n = self.at_dft * self.processes
        if n <= n_cores() or self.processes == 1:
            return ""
        return (
            f"{self.at_dft} DFT calculations at a time of {self.processes} processes each are {n} "
            f"processes on {n_cores()} cores: lower `dft_workers` under [launch], or the number in "
            "the command of the DFT code"
        )


def worker_numbers(settings: Settings, workers: int | None = None) -> WorkerNumbers:
    """Processes for a campaign, by its settings.

    Where a DFT calculation takes several cores and nobody says how many workers there are, so many
    do DFT that all of them have cores of their own.

    Parameters
    ----------
    workers
        In place of ``launch.workers``; 0: one per core.
    """
    launch = settings.launch
    processes = processes_of(settings.dft)
    wanted = launch.workers if workers is None else workers
    dft_workers = launch.dft_workers
    if processes > 1 and not (dft_workers or wanted):
        dft_workers = max(1, n_cores() // processes)
    return WorkerNumbers(wanted or n_cores(), dft_workers, processes)


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
