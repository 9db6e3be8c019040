"""Claims: tokens that only grow, signs of life, and what happens to those that are taken away."""

import pytest

from hullscreen.database.claims import Claim, Claims


@pytest.fixture
def claims(mongo):
    return Claims(mongo, "cu-pd")


def take(claims, fw_id=7, holder="hullscreen|here|1|1", job_id=""):
    return claims.take(fw_id, category="relax", holder=holder, host="here", job_id=job_id)


def test_each_taking_has_a_larger_token_and_ends_the_one_before(claims):
    first, second = take(claims), take(claims, holder="hullscreen|there|2|2")
    assert (first, second) == (1, 2)
    assert not claims.is_held(7, first)
    assert claims.is_held(7, second)
    assert not claims.beat(7, first)


def test_beats_are_counted_and_timed_by_the_server(claims, mongo):
    token = take(claims, job_id="42")
    before = mongo.database.claims.find_one({"_id": 7})
    assert claims.beat(7, token)
    assert claims.beat(7, token)
    after = mongo.database.claims.find_one({"_id": 7})
    assert claims.of([7, 8]) == {7: Claim(7, token, "hullscreen|here|1|1", "42", 2)}
    assert after["began_at"] == before["began_at"]
    assert after["seen_at"] >= before["seen_at"]


def test_only_one_of_several_revokes_a_claim(claims):
    token = take(claims)
    assert [claims.revoke(7, token) for _ in range(3)] == [True, False, False]
    assert not claims.is_held(7, token)
    assert claims.of([7])[7].holder == ""


def test_what_nobody_has_held_is_revoked_once(claims):
    assert [claims.revoke(9, 0) for _ in range(2)] == [True, False]
    # Somebody was quicker to take it than the second to revoke it.
    take(claims, 10)
    assert not claims.revoke(10, 0)


def test_release_does_nothing_to_the_next_holder(claims):
    first = take(claims)
    take(claims, holder="hullscreen|there|2|2")
    claims.release(7, first)
    assert [claim.fw_id for claim in claims.held_by("hullscreen|there|2|2")] == [7]


def test_campaigns_do_not_see_one_another_s_claims(claims, mongo):
    take(claims, 1)
    take(Claims(mongo, "ni-pt"), 2)
    assert [claim.fw_id for claim in claims.held_by("hullscreen|here|1|1")] == [1]


def test_a_holder_whose_name_looks_like_a_field_is_kept_as_it_is(claims):
    take(claims, holder="$$NOW")
    assert claims.of([7])[7].holder == "$$NOW"
