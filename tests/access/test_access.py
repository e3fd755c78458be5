"""Keys: made once, shown once; and the whole table of who may do what."""

import asyncio

import pytest

from personalize.access import ACTIONS, Access, Principal
from personalize.config import Settings
from personalize.errors import InvalidParameter, NotFound, PermissionDenied, Unauthenticated
from personalize.types import UserId

ALICE, BOB = UserId("a" * 32), UserId("b" * 32)
ADMIN, APP, OWN = Principal("1", "admin"), Principal("2", "app"), Principal("3", "user", ALICE)

# action -> (admin, app, user for herself, user for somebody else, user for nobody in particular)
MATRIX = {
    "chat": (True, True, True, False, False),
    "read": (True, True, True, False, False),
    "change": (True, True, True, False, False),
    "forget": (True, True, True, False, False),
    "list_users": (True, False, False, False, False),
    "import": (True, False, False, False, False),
    "keys": (True, False, False, False, False),
    "operate": (True, False, False, False, False),
}


@pytest.mark.parametrize("action", MATRIX)
def test_matrix(action):
    asked = ((ADMIN, BOB), (APP, BOB), (OWN, ALICE), (OWN, BOB), (OWN, None))
    assert tuple(principal.may(action, user_id) for principal, user_id in asked) == MATRIX[action]
    for (principal, user_id), allowed in zip(asked, MATRIX[action], strict=True):
        if allowed:
            principal.require(action, user_id)
        else:
            with pytest.raises(PermissionDenied, match=principal.scope):
                principal.require(action, user_id)


def test_the_matrix_is_whole_and_an_unknown_action_is_nobodys():
    assert set(MATRIX) == set(ACTIONS)
    with pytest.raises(KeyError):
        ADMIN.may("everything")


def run(work, home):
    async def main():
        async with Access.open(Settings(home=home)) as access:
            return await work(access)

    return asyncio.run(main())


def test_a_secret_is_known_until_it_is_revoked_and_lies_nowhere(tmp_path):
    async def work(access):
        key, secret = await access.create_key("app", label="shop")
        assert (await access.authenticate(secret)) == Principal(key.key_id, "app", None)
        assert await access.list_keys() == (key,) and not key.revoked
        await access.revoke_key(key.key_id)
        for wrong in (secret, "", None, "pk-" + "0" * 12, secret[:-1], "nonsense"):
            with pytest.raises(Unauthenticated, match="no valid API key"):
                await access.authenticate(wrong)
        assert (await access.list_keys())[0].revoked
        return secret

    secret = run(work, tmp_path)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_a_user_key_is_the_user(tmp_path):
    async def work(access):
        key, secret = await access.create_key("user", "alice")
        principal = await access.authenticate(secret)
        assert principal.scope == "user" and principal.user_id == key.user_id
        again, _ = await access.create_key("user", UserId(key.user_id))
        assert again.user_id == key.user_id
        with pytest.raises(NotFound):
            await access.create_key("user", BOB)

    run(work, tmp_path)


def test_scopes_and_users_have_to_fit(tmp_path):
    async def work(access):
        for scope, user in (("root", None), ("user", None), ("admin", "alice"), ("app", "alice")):
            with pytest.raises(InvalidParameter):
                await access.create_key(scope, user)
        with pytest.raises(NotFound):
            await access.revoke_key("0" * 12)

    run(work, tmp_path)


def test_the_first_admin_key_is_made_once(tmp_path):
    async def work(access):
        secret = await access.ensure_admin_key()
        assert (await access.authenticate(secret)).scope == "admin"
        assert await access.ensure_admin_key() is None
        await access.revoke_key((await access.list_keys())[0].key_id)
        assert await access.ensure_admin_key() not in (None, secret)

    run(work, tmp_path)


def test_keys_die_with_their_user(tmp_path):
    from tests.service.support import opened

    async def main():
        async with opened(tmp_path) as app:
            access = Access(app)
            _, secret = await access.create_key("user", "alice")
            await access.authenticate(secret)
            await app.forget("alice")
            with pytest.raises(Unauthenticated):
                await access.authenticate(secret)

    asyncio.run(main())
