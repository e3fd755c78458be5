import pytest

from adapters_store.errors import InvalidValue, NotFound


def test_a_secret_opens_its_key_until_it_is_revoked(hand):
    user = hand.user()
    assert not hand.store.has_keys()
    key, secret = hand.store.create_key("user", user.user_id, label="phone")
    assert hand.store.has_keys()
    assert hand.store.verify_key(secret) == key == hand.store.list_keys()[0]
    assert (key.scope, key.user_id, key.label, key.revoked_s) == ("user", user.user_id, "phone", None)
    hand.store.revoke_key(key.key_id)
    assert hand.store.verify_key(secret) is None
    assert not hand.store.has_keys()
    assert hand.store.list_keys()[0].revoked_s is not None


def test_secrets_have_256_bits_and_only_a_hash_is_kept(local):
    secrets = [local.store.create_key("admin")[1] for _ in range(20)]
    assert len(set(secrets)) == 20
    tails = [secret.split("-", 2)[2] for secret in secrets]
    assert all(len(tail) == 43 for tail in tails)
    local.store.close()
    content = b"".join(path.read_bytes() for path in local.files())
    assert not any(tail.encode() in content for tail in tails)


def test_wrong_secrets_open_nothing(hand):
    key, secret = hand.store.create_key("app")
    wrong = "A" if secret[-1] != "A" else "B"
    for bad in (secret[:-1] + wrong, secret + "x", secret[:-1], "", "pk-", f"pk-{'0' * 12}-{'x' * 43}", "é" * 60, None):
        assert hand.store.verify_key(bad) is None
    assert hand.store.verify_key(secret) == key


def test_the_comparison_is_made_for_unknown_keys_too(local, monkeypatch):
    import adapters_store.keys as module

    compared = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert local.store.verify_key(f"pk-{'0' * 12}-{'x' * 43}") is None
    assert len(compared) == 1 and all(len(side) == 64 for side in compared[0])


@pytest.mark.parametrize(("scope", "has_user"), [("user", False), ("admin", True), ("app", True), ("root", False)])
def test_scopes_and_users_must_fit(local, scope, has_user):
    with pytest.raises(InvalidValue):
        local.store.create_key(scope, local.user().user_id if has_user else None)


def test_keys_of_nobody_are_refused(hand):
    with pytest.raises(NotFound):
        hand.store.create_key("user", "0" * 32)
    with pytest.raises(NotFound):
        hand.store.revoke_key("0" * 12)


@pytest.mark.parametrize("key_id", ["", "a\0b", "0" * 13, "A" * 12])
def test_what_has_not_the_form_of_a_key_id_is_no_key(hand, key_id):
    with pytest.raises(NotFound):
        hand.store.revoke_key(key_id)
