"""How a failure of a code that works through files is recognised: by a table of what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hullscreen.dft_adapters.engine import CalculationError, EngineMissingError
from hullscreen.dft_adapters.runner import Completed

if TYPE_CHECKING:
    from hullscreen.dft_adapters.file_engine import FileEngine

OUTPUT_FILE = "output.txt"
ERROR_FILE = "errors.txt"
TAIL_BYTES = 200_000
DISK_FULL = "disk_full"
# Exit statuses between these: ended by a signal, 128 below.
SIGNALS = range(129, 193)


@dataclass(frozen=True)
class Failure:
    """A row of an engine's failures table.

    Attributes
    ----------
    pattern
        Regular expression looked for in the output, the errors and `FileEngine.failure_files`.
    reason
        Key of the kind of failure, and of its corrections in `FileEngine.corrections`.
    meaning
        End of the sentence "the calculation … ": what happened and what helps.
    source
        Where the code says so.
    of_the_machine
        It says nothing about the structure: the calculation is not given up, but tried again when
        the campaign is.
    """

    pattern: str
    reason: str
    meaning: str
    source: str
    of_the_machine: bool = False


def raise_if_failed(engine: FileEngine, directory: Path, completed: Completed) -> None:
    """Look the output up in the failures table.

    Raises
    ------
    CalculationError
        It failed.
    EngineMissingError
        It failed, and that is not the structure's fault.
    """
    if completed.timed_out:
        raise CalculationError(
            "timeout",
            f"{engine.name} was killed after {engine.timeout_s:g} s in {directory}; raise "
            "`timeout_s` in the dft table of the settings, or run on more cores",
            directory,
        )
    text = "\n".join(
        _tail(directory / name) for name in (OUTPUT_FILE, ERROR_FILE, *engine.failure_files)
    )
    for failure in engine.failures:
        if re.search(failure.pattern, text):
            sentence = f"the {engine.name} calculation in {directory} {failure.meaning}"
            if failure.of_the_machine:
                raise EngineMissingError(failure.reason, sentence)
            raise CalculationError(failure.reason, sentence, directory)
    if completed.returncode in engine.good_codes:
        return
    if completed.returncode in SIGNALS:
        raise CalculationError(
            "killed",
            f"{engine.name} was ended by signal {completed.returncode - 128} in "
            f"{directory}, often for want of memory; see {OUTPUT_FILE} and {ERROR_FILE} there",
            directory,
        )
    raise CalculationError(
        "unknown_failure",
        f"{engine.name} ended with exit status {completed.returncode} and no message that is "
        f"known; see {OUTPUT_FILE} and {ERROR_FILE} in {directory}",
        directory,
    )


def _tail(path: Path) -> str:
    """The last part of a text file, where codes say why they stopped."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        return stream.read().decode("utf-8", errors="replace")
