"""The local backend's base teacher: bounded by its setting, and forgetting on the device thread."""

import asyncio
from dataclasses import replace

import pytest

import personalize.learner.teacher as teacher
from personalize.backends.local import LocalBackend
from personalize.config import EngineSettings
from personalize.errors import InvalidParameter
from personalize.learner import HindsightLearner, Recipe
from personalize.model.base import BaseModel
from personalize.runtime.device import Runtime
from personalize.types import Lesson, Outcome
from tests.engine.stage import Letters
from tests.learner.conftest import CharacterRenderer, experience
from tests.model.tiny import tiny_module


@pytest.fixture
def backend(monkeypatch):
    monkeypatch.setattr(teacher, "BLOCK", 4)
    base = BaseModel(tiny_module(), base_digest="0" * 64, renderer=CharacterRenderer())  # pyright: ignore
    runtime = Runtime(base, EngineSettings(max_num_seqs=2), rank=4, vocabulary=Letters())
    recipe = Recipe(gate_nats=None, num_steps=1, replay=0)
    backend = LocalBackend(base, runtime, HindsightLearner(base, recipe, teacher_cache_bytes=1 << 20))
    yield backend
    asyncio.run(backend.aclose())


def test_users_are_remembered_after_an_update_and_forgotten_one_by_one(backend, tmp_path):
    lessons = [replace(Lesson(experience(number)), user_id=name) for number, name in enumerate(("ada", "ben"))]

    async def main():
        reports = await backend.run_update(lessons, [None, None], [tmp_path / name for name in "ab"])
        assert [report.outcome for report in reports] == [Outcome.APPLIED] * 2
        assert backend.remembered_users() == {"ada", "ben"}
        await backend.forget_user("ada")
        assert backend.remembered_users() == {"ben"}

    for name in "ab":
        (tmp_path / name).mkdir()
    asyncio.run(main())


def test_another_learner_keeps_nothing(backend):
    backend.learner = object()
    assert backend.remembered_users() == frozenset()
    asyncio.run(backend.forget_user("ada"))


def test_the_setting_is_bounded():
    with pytest.raises(InvalidParameter, match="max_teacher_bytes"):
        EngineSettings(max_teacher_bytes=-1)
