import pytest

from hullscreen.database.launchpad_state import FailedFirework, last_words
from hullscreen.workflows.failure_groups import first_sentence, grouped

ELEMENTS = ("Cu", "Pd")


def failed(fw_id, reason, category="dft", exception="DFTError"):
    return FailedFirework(fw_id, "a step", category, reason, exception)


def test_one_reason_whatever_the_structure():
    groups = grouped(
        [
            failed(9, "1 of 5 calculations failed: structure 41: no scf for Cu3Pd in /a/b/c"),
            failed(8, "2 of 5 calculations failed: structure 7: no scf for CuPd in /a/d; "
                      "structure 8: out of memory"),
            failed(7, "the potential has no minimum", "train", "PotentialError"),
        ],
        ELEMENTS,
    )  # fmt: skip
    assert [(g.category, g.count, g.example) for g in groups] == [("dft", 2, 9), ("train", 1, 7)]
    assert groups[0].reason == "no scf for Cu3Pd in /a/b/c"
    assert not any(group.passes for group in groups)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no scf", "out of memory"),
        # These are words, not formulas of the elements.
        ("no scf for Cup", "no scf for Cud"),
    ],
)
def test_different_reasons_stay_apart(one, other):
    assert len(grouped([failed(1, one), failed(2, other)], ELEMENTS)) == 2
    assert len(grouped([failed(1, one), failed(2, one, "relax")], ELEMENTS)) == 2


def test_what_passes_and_what_has_no_reason():
    (away, silent) = grouped(
        [failed(3, "no server", "relax", "ServerSelectionTimeoutError"), failed(4, "", "dft", "")],
        ELEMENTS,
    )
    assert (away.passes, silent.passes) == (True, False)
    assert silent.reason == "no reason is recorded"


def test_reasons_that_are_no_lists_stay_whole():
    sentence = "the disk is full; structure 8: nothing"
    assert first_sentence(sentence) == sentence


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        ("", ("", "")),
        ("Traceback\n  File\nhullscreen.potentials.errors.DFTError: no: scf\n",
         ("DFTError", "no: scf")),
        ("KeyError: 'x'", ("KeyError", "'x'")),
        ("the job: it ended", ("", "the job: it ended")),
        ("StopIteration", ("", "StopIteration")),
    ],
)  # fmt: skip
def test_last_words_of_a_traceback(trace, words):
    assert last_words(trace) == words
