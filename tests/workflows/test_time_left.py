from datetime import UTC, datetime, timedelta

import pytest

from hullscreen.workflows.time_left import busy_seconds, calculations_left_s, steps_left_s

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return START + timedelta(seconds=seconds)


def spans(*pairs):
    return [(at(start), at(end)) for start, end in pairs]


def test_overlaps_count_once_and_pauses_not_at_all():
    assert busy_seconds(spans((0, 10), (2, 5), (8, 20), (100, 101))) == 21.0
    assert busy_seconds([]) == 0.0


def test_what_was_before_a_moment_does_not_count():
    assert busy_seconds(spans((0, 10), (20, 30)), at(5)) == 15.0
    assert busy_seconds(spans((0, 10)), at(10)) == 0.0


def test_two_at_a_time_are_twice_as_quick():
    one = spans((0, 10), (10, 20), (20, 30), (30, 40))
    two = spans((0, 10), (0, 10), (10, 20), (10, 20))
    assert steps_left_s(6, one, [], at(100)) == pytest.approx(60.0)
    assert steps_left_s(6, two, [], at(100)) == pytest.approx(30.0)


def test_a_pause_makes_nothing_slower():
    worked = spans((0, 10), (10, 20))
    interrupted = spans((0, 10), (1000, 1010))
    assert steps_left_s(3, worked, [], at(20)) == steps_left_s(3, interrupted, [], at(2000))


def test_steps_under_way_count_as_far_as_they_are():
    done = spans((0, 10), (10, 20))
    # Half of one is done; the five seconds it took so far are work as well.
    assert steps_left_s(0, done, [at(20)], at(25)) == pytest.approx(0.5 * 25.0 / 2)
    # It takes longer than others did, so nobody knows when it ends.
    assert steps_left_s(0, done, [at(20)], at(90)) is None


def test_nothing_to_reckon_with():
    assert steps_left_s(3, [], [], at(0)) is None
    assert steps_left_s(0, [], [at(0)], at(5)) is None
    assert steps_left_s(0, [], [], at(0)) == 0.0


def test_calculations():
    assert calculations_left_s(30, 10, 60.0) == pytest.approx(180.0)
    assert calculations_left_s(0, 0, 0.0) == 0.0
    assert calculations_left_s(30, 0, 60.0) is None
