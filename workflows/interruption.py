"""Ending a process between steps, or in the middle of one that is then handed back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Of the time that a queue gives, this is left for handing back: a share of it, but not too much.
MARGIN_SHARE = 0.1
LONGEST_MARGIN_S = 60.0


class StepInterruptedError(KeyboardInterrupt):
    """The process was asked to end while it carried out a step."""


@dataclass
class Interruption:
    """Whether this process was asked to end.

    A signal ends a step where it is, for every step may be repeated; anything else, such as
    FireWorks' own writes, is finished first.

    Attributes
    ----------
    requested
        It was.
    """

    requested: bool = False
    _in_step: bool = False

    def request(self, *_signal: object) -> None:
        """Handle a signal.

        Raises
        ------
        StepInterruptedError
            A step is being carried out.
        """
        self.requested = True
        if self._in_step:
            self._in_step = False
            raise StepInterruptedError("the worker was asked to end")

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark what a signal may end."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False


interruption = Interruption()


def end_on_signals(*, on_ctrl_c: bool = True) -> None:
    """Let SIGTERM, and Ctrl-C unless another process looks after it, end this process in order."""
    signal.signal(signal.SIGTERM, interruption.request)
    signal.signal(signal.SIGINT, interruption.request if on_ctrl_c else signal.SIG_IGN)


def end_here() -> None:
    """End this process in order, from any of its threads, if it handles signals as said above."""
    if signal.getsignal(signal.SIGTERM) == interruption.request:
        os.kill(os.getpid(), signal.SIGTERM)


def end_after(seconds: float) -> None:
    """End this process in order before a queue does, which gives it ``seconds`` from now."""
    margin = min(MARGIN_SHARE * seconds, LONGEST_MARGIN_S)
    timer = threading.Timer(seconds - margin, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
