"""What is kept of users, by whose it is."""

from personalize.learner.kept import Kept


def test_what_is_kept_is_not_looked_for_again():
    kept, looked = Kept[str, int | None](10), []

    def find(value):
        return lambda: looked.append(value) or value

    assert [kept.get("ada", "a", find(1)), kept.get("ada", "a", find(2)), kept.get("ada", "b", find(3))] == [1, 1, 3]
    assert looked == [1, 3] and kept.peek("ada", "a") == 1 and kept.peek("ada", "c") is None


def test_nothing_found_is_kept_as_well():
    kept = Kept[str, int | None](10)
    assert kept.get("ada", "a", lambda: None) is None
    assert kept.get("ada", "a", lambda: 1) is None


def test_owners_do_not_share_and_the_nameless_keep_nothing():
    kept = Kept[str, int](10)
    found = iter(range(4))
    assert [kept.get(owner, "a", lambda: next(found)) for owner in ("ada", "ben", "", "")] == [0, 1, 2, 3]
    assert kept.owners() == {"ada", "ben"} and len(kept) == 2
    kept.forget("ada")
    kept.forget("nobody")
    assert kept.owners() == {"ben"} and kept.peek("ben", "a") == 1


def test_the_least_recently_used_goes_first():
    kept = Kept[str, int](2)
    for owner, key in (("ada", "a"), ("ben", "b"), ("ada", "a"), ("ada", "c")):
        kept.get(owner, key, lambda: 0)
    assert kept.owners() == {"ada"} and len(kept) == 2
    none = Kept[str, int](0)
    assert none.get("ada", "a", lambda: 5) == 5 and len(none) == 0
