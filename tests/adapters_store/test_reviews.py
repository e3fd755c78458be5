"""A verdict on a published version: when it is due, who may give it, and what it moves."""

import pytest

from adapters_store import Limits
from adapters_store.errors import InvalidValue, LeaseLost, NotFound
from adapters_store.reviews import lineage

ME = "me"


def grown(hand, user, count):
    assert hand.store.acquire_lease(ME, 60)
    return [hand.publish(user) for _ in range(count)]


def verdict(hand, user, number, breach=None, **metrics):
    return hand.store.record_review(ME, user.user_id, number, breach, metrics)


def due(hand, user, every=3):
    version = hand.store.due_review(user.user_id, hand.base, every)
    return version.number if version else None


def test_a_head_is_due_after_so_many_versions_and_at_once_behind_a_broken_one(hand):
    user = hand.user()
    assert due(hand, user) is None
    grown(hand, user, 2)
    assert due(hand, user) is None
    hand.publish(user)
    assert due(hand, user) == 3 and due(hand, user, every=4) is None
    assert verdict(hand, user, 3, entropy=1.5) == 3
    assert due(hand, user) is None
    grown(hand, user, 2)
    assert due(hand, user) is None
    hand.publish(user)
    assert due(hand, user) == 6
    moved_on = hand.publish(user)
    assert verdict(hand, user, 6, "repetition") == moved_on.number, "a head that has moved on is left alone"
    assert due(hand, user) == 7, "it was made from a broken one"


def test_a_breach_goes_back_to_the_last_version_that_passed_and_says_why(hand):
    user = hand.user()
    grown(hand, user, 3)
    verdict(hand, user, 3)
    for _ in range(2):
        hand.publish(user)
    update_id = hand.queue(user)
    assert [claim.update_id for claim in hand.claim(ME)] == [update_id]
    broken = hand.publish(user, update_id=update_id)
    waiting, counter = hand.queue(user), hand.store.change_counter()
    assert verdict(hand, user, broken.number, "repetition", review_repetition=0.98) == 3
    assert hand.store.head(user.user_id, hand.base).number == 3
    assert hand.store.update(waiting).outcome == "cancelled_rollback" and hand.store.change_counter() > counter
    told = {"loss_last": 0.5, "review_passed": 0.0, "review_repetition": 0.98}
    assert hand.store.version(user.user_id, broken.number).metrics == told
    assert hand.store.update(update_id).metrics == told and hand.store.update(update_id).outcome == "applied"
    assert hand.store.version(user.user_id, 3).review and not hand.store.version(user.user_id, broken.number).review
    line = hand.store.audit_log(1)[0]
    assert (line.actor, line.action, line.object_id) == ("review", "version.rollback", user.user_id)
    assert line.detail == {"before": broken.number, "after": 3, "base": hand.base[:16], "reason": "repetition"}
    assert hand.store.audit_intact()
    assert hand.store.rollback(user.user_id, broken.number) == broken, "whoever wants it back may have it"
    assert due(hand, user) is None


def test_where_none_has_passed_the_base_is_what_is_left(hand):
    user = hand.user()
    grown(hand, user, 3)
    assert verdict(hand, user, 3, "blank") is None
    assert hand.store.head(user.user_id, hand.base) is None
    assert len(hand.store.versions(user.user_id)) == 3


def test_only_what_the_broken_one_was_made_from_is_gone_back_to(hand):
    user = hand.user()
    grown(hand, user, 2)
    verdict(hand, user, 1)
    verdict(hand, user, 2)
    hand.store.rollback(user.user_id, 1)
    branch = hand.publish(user)
    assert verdict(hand, user, branch.number, "length") == 1


def test_only_the_holder_of_the_lease_judges_and_only_what_exists(hand):
    user = hand.user()
    hand.publish(user)
    with pytest.raises(LeaseLost):
        verdict(hand, user, 1, "blank")
    assert hand.store.acquire_lease("other", 60)
    with pytest.raises(LeaseLost):
        verdict(hand, user, 1, "blank")
    hand.store.release_lease("other")
    grown(hand, user, 0)
    with pytest.raises(NotFound):
        verdict(hand, user, 2)
    with pytest.raises(InvalidValue):
        verdict(hand, user, 1, "")
    hand.store.forget(user.user_id)
    with pytest.raises(NotFound):
        verdict(hand, user, 1, "blank")


def test_the_newest_that_passed_outlives_retention(open_hand):
    hand = open_hand(limits=Limits(keep_newest=2, keep_daily_days=0))
    user = hand.user()
    grown(hand, user, 1)
    verdict(hand, user, 1)
    grown(hand, user, 5)
    assert [version.number for version in hand.store.versions(user.user_id)] == [6, 5, 1]
    assert [version.number for version in lineage(*_head_and_all(hand, user))] == [5, 1]
    assert verdict(hand, user, 6, "echo") == 1
    verdict(hand, user, 5)
    hand.publish(user)
    assert 1 in [version.number for version in hand.store.versions(user.user_id)], "the parent of the head"


def _head_and_all(hand, user):
    return hand.store.head(user.user_id, hand.base), hand.store.versions(user.user_id)


def test_a_broken_recomputation_does_not_bring_back_what_it_replaced(hand):
    """The version that was replaced has learnt what the user took back, however well it passed."""
    user = hand.user()
    grown(hand, user, 3)
    verdict(hand, user, 1)
    replaced = hand.store.head(user.user_id, hand.base)
    assert replaced is not None and verdict(hand, user, replaced.number) == 3
    again = hand.publish(user, origin="recomputation", metrics={"recomputed_from": 1.0})
    assert (again.parent, again.trained_from) == (3, 1)
    assert [version.number for version in lineage(again, hand.store.versions(user.user_id))] == [1]
    assert verdict(hand, user, again.number, "repetition") == 1
    anew = hand.publish(user, origin="recomputation", metrics={"recomputed_from": 0.0})
    assert anew.trained_from is None and verdict(hand, user, anew.number, "repetition") is None
