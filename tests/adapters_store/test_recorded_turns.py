"""Turns whose id the caller makes: recorded once, whoever records them and however often."""

from dataclasses import replace

import pytest

from adapters_store import LocalBlobs, NewTurn, Store
from adapters_store.errors import InvalidValue, StorageUnavailable

TURN_ID = "0123456789abcdef" * 2


@pytest.fixture()
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path / 'index.sqlite'}", LocalBlobs(tmp_path)) as opened:
        yield opened


def turn(user_id: str, **changes) -> NewTurn:
    made = NewTurn(
        user_id=user_id, request_id="log-1", messages=(("user", "hello"),), prompt_ids=(1, 2), completion_ids=(3,),
        completion_mask=(1,), reply_text="hi", finish_reason="stop", base_digest="b" * 64, outcome="queued",
        turn_id=TURN_ID,
    )  # fmt: skip
    return replace(made, **changes)


def test_the_first_record_stays(store):
    ann = store.ensure_user("ann").user_id
    assert store.record_turn(turn(ann)) == TURN_ID == store.record_turn(turn(ann, reply_text="other"))
    assert store.load_turn(TURN_ID).reply_text == "hi" and store.get_user(ann).num_turns == 1


def test_a_second_process_that_is_late_leaves_the_file_in_place(store, tmp_path, monkeypatch):
    ann = store.ensure_user("ann").user_id
    with Store.open(f"sqlite:///{tmp_path / 'index.sqlite'}", LocalBlobs(tmp_path)) as other:
        monkeypatch.setattr(other, "_has_turn", lambda *key: False)  # it looked before the first one wrote
        store.record_turn(turn(ann))
        assert other.record_turn(turn(ann)) == TURN_ID
        assert other.load_turn(TURN_ID).reply_text == "hi" and other.get_user(ann).num_turns == 1


def test_a_second_process_that_fails_leaves_the_file_in_place(store, tmp_path, monkeypatch):
    def refuse(work):
        raise StorageUnavailable("busy")

    ann = store.ensure_user("ann").user_id
    with Store.open(f"sqlite:///{tmp_path / 'index.sqlite'}", LocalBlobs(tmp_path)) as other:
        monkeypatch.setattr(other, "_has_turn", lambda *key: False)  # it looked before the first one wrote
        monkeypatch.setattr(other, "_write", refuse)
        store.record_turn(turn(ann))
        with pytest.raises(StorageUnavailable):
            other.record_turn(turn(ann))
    assert store.load_turn(TURN_ID).reply_text == "hi"


def test_an_id_of_another_user_or_form_is_refused(store):
    ann, bob = (store.ensure_user(name).user_id for name in ("ann", "bob"))
    store.record_turn(turn(ann))
    with pytest.raises(InvalidValue, match="turn_id"):
        store.record_turn(turn(bob))
    with pytest.raises(InvalidValue, match="turn_id"):
        store.record_turn(turn(ann, turn_id="../x"))
    assert store.get_user(bob).num_turns == 0
