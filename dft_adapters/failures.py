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
LAUNCHER = "launcher"
LONGEST_QUOTE = 200
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
    quoted
        Regular expression whose first group is what the code itself says of it; empty: nothing.
    """

    pattern: str
    reason: str
    meaning: str
    source: str
    of_the_machine: bool = False
    quoted: str = ""

    def told(self, text: str) -> str:
        """The meaning, with the code's own words out of its output."""
        found = re.search(self.quoted, text) if self.quoted else None
        if found is None:
            return self.meaning
        what, semicolon, advice = self.meaning.partition("; ")
        return f"{what} ({_plain(found.group(1))}){semicolon}{advice}"


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
            f"`timeout_s` under [{engine.table}] in hullscreen.toml, or run on more cores",
            directory,
        )
    text = "\n".join(
        _tail(directory / name) for name in (OUTPUT_FILE, ERROR_FILE, *engine.failure_files)
    )
    for failure in engine.failures:
        if re.search(failure.pattern, text):
            sentence = f"the {engine.name} calculation in {directory} {failure.told(text)}"
            if failure.of_the_machine:
                raise EngineMissingError(failure.reason, sentence)
            raise CalculationError(failure.reason, sentence, directory)
    if completed.returncode in engine.good_codes:
        return
    if completed.returncode not in SIGNALS and not _began(engine, directory):
        words = _first_words(directory)
        raise EngineMissingError(
            LAUNCHER,
            f"{engine.name} did not begin in {directory}: {words}; look at `command` under "
            f"[{engine.table}] in hullscreen.toml",
        )
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


def _began(engine: FileEngine, directory: Path) -> bool:
    """Whether the code has printed its first words; a launcher that refuses prints its own."""
    if not engine.first_words:
        return True
    with (directory / OUTPUT_FILE).open("rb") as stream:
        if engine.first_words.encode() in stream.read(TAIL_BYTES):
            return True
    # Its ranks were at work; their words may be lost in buffers on other nodes.
    return "MPI_ABORT" in _tail(directory / ERROR_FILE)


def _first_words(directory: Path) -> str:
    """The first line of what was printed instead; a launcher says first what is wrong."""
    for name in (ERROR_FILE, OUTPUT_FILE):
        for line in _tail(directory / name).splitlines():
            if re.search(r"[^\W\d_]{2}", line):
                return _plain(line)
    return f"`command` printed nothing to {OUTPUT_FILE} and {ERROR_FILE} there"


def _plain(words: str) -> str:
    """Words of a code as part of a sentence."""
    line = " ".join(words.split()).rstrip(".")
    return line if len(line) <= LONGEST_QUOTE else f"{line[:LONGEST_QUOTE]}..."


def _tail(path: Path) -> str:
    """The last part of a text file, where codes say why they stopped."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        return stream.read().decode("utf-8", errors="replace")
