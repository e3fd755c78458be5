"""The local backend on a small model from disk: replies, updates and new versions in one process."""

import asyncio
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adapters_store.folder import folder_digest
from personalize.backends import local, open_backend
from personalize.backends.local import LocalBackend
from personalize.config import EngineSettings, Settings
from personalize.errors import AdapterCorrupt, AdapterError, Cancelled, UnsupportedParameter
from personalize.learner import HindsightLearner, Recipe, explanation
from personalize.model.folder import read_adapter
from personalize.types import (
    AdapterRef,
    Experience,
    ExplainRequest,
    GenerateRequest,
    Lesson,
    Message,
    Outcome,
    ReviewRequest,
    SamplingParams,
    UpdateReport,
    Window,
)
from tests.templates import VOCAB_SIZE, tokenizer


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer("trimmed").save_pretrained(folder)
    return Settings(model=str(folder), device="cpu", engine=EngineSettings(max_num_seqs=4))


@pytest.fixture
def backend(settings):
    backend = LocalBackend.open(settings)
    backend.learner = HindsightLearner(backend.base, Recipe(gate_nats=None, num_steps=2, lr=1e-2))
    yield backend
    asyncio.run(backend.aclose())


def request_for(backend, text, ref=None, max_tokens=12, temperature=0.0):
    ids = backend.renderer.render((Message("user", text),))
    return GenerateRequest("r", ids, SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=1), ref)


async def reply(backend, *args, **kwargs):
    chunks = [chunk async for chunk in backend.generate(request_for(backend, *args, **kwargs))]
    assert "".join(chunk.text for chunk in chunks) == chunks[-1].completion.text
    return chunks[-1].completion


async def lesson_about(backend, text, ref=None):
    completion = await reply(backend, text, ref, temperature=1.0)
    request = request_for(backend, text)
    return Lesson(
        Experience(
            turn_id="0" * 32,
            messages=(Message("user", text),),
            prompt_ids=request.prompt_ids,
            completion_ids=completion.token_ids,
            completion_mask=completion.mask,
            follow_up="Please answer in one short sentence.",
        )
    )


def test_a_turn_is_learned_beside_a_stream_and_served_from_memory_as_from_disk(backend, tmp_path):
    async def main():
        lesson = await lesson_about(backend, "the quick brown fox")
        before = await reply(backend, "the lazy dog")
        talking = asyncio.create_task(reply(backend, "the lazy dog", max_tokens=200))
        (report,) = await backend.run_update([lesson], [None], [tmp_path])
        assert report.outcome is Outcome.APPLIED
        after_update = await reply(backend, "the lazy dog")
        assert after_update.token_ids == before.token_ids  # the base serves on as it was
        ref = AdapterRef(f"u_{1:032x}@1-{folder_digest(tmp_path)[:16]}", str(tmp_path))
        await backend.publish(ref, report.tensors)
        assert backend.stats()["num_loaded"] == 1
        warm = await reply(backend, "the lazy dog", ref)
        await backend.unload_adapter(ref)
        assert backend.stats()["num_loaded"] == 0
        cold = await reply(backend, "the lazy dog", ref)
        assert warm.token_ids == cold.token_ids
        assert (await talking).token_ids[: len(before.token_ids)] == before.token_ids
        return report

    report = asyncio.run(main())
    loaded = read_adapter(tmp_path, backend.base)
    for ours, theirs in zip(report.tensors.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_cancelled_update_has_let_go_when_the_call_returns(backend):
    state = []

    class Endless:
        def update(self, lessons, parents, out_dirs):
            try:
                while True:
                    state.append("window")
                    yield Window()
            finally:
                state.append("closed")

    async def main():
        backend.learner = Endless()
        task = asyncio.create_task(backend.run_update([], [], []))
        while "window" not in state:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state[-1] == "closed"
        return await reply(backend, "hello")

    assert asyncio.run(main()).token_ids


def test_opened_holds_what_the_service_needs_and_closing_answers(settings):
    async def main():
        opened = await asyncio.to_thread(open_backend, settings)
        assert opened.max_model_len == 512 and len(opened.base_digest) == 64 and opened.max_batch >= 1
        ids = opened.renderer.render((Message("user", "hello"),))
        stream = opened.inference.generate(GenerateRequest("r", ids, SamplingParams(max_tokens=400)))
        await anext(stream)
        await opened.inference.aclose()
        with pytest.raises(Cancelled):
            async for _ in stream:
                pass
        with pytest.raises(Cancelled):
            await opened.trainer.run_update([], [], [])

    asyncio.run(main())


def test_always_takes_the_gate_away(settings):
    backend = LocalBackend.open(replace(settings, service=replace(settings.service, learning="always")))
    assert isinstance(backend.learner, HindsightLearner) and backend.learner.recipe.gate_nats is None
    asyncio.run(backend.aclose())


def test_reports_are_delivered_in_the_order_of_the_lessons(backend):
    reports = tuple(UpdateReport(str(n), Outcome.APPLIED) for n in range(3))

    class Fixed:
        def update(self, lessons, parents, out_dirs):
            yield Window()
            yield Window(reports)

    backend.learner = Fixed()
    assert asyncio.run(backend.run_update([], [], [])) == reports


def test_an_explanation_is_made_between_the_steps_of_a_stream(backend, tmp_path, monkeypatch):
    happened = []

    def noted(name, function):
        def call(*args, **kwargs):
            happened.append(name)
            return function(*args, **kwargs)

        return call

    async def main():
        lesson = await lesson_about(backend, "the quick brown fox")
        (report,) = await backend.run_update([lesson], [None], [tmp_path])
        assert report.outcome is Outcome.APPLIED
        version = AdapterRef(f"u_{1:032x}@1-{folder_digest(tmp_path)[:16]}", str(tmp_path))
        request = ExplainRequest(lesson.experience, (lesson.experience,), version)
        alone = await backend.explain(request)
        before = await reply(backend, "the lazy dog", max_tokens=200)
        monkeypatch.setattr(explanation, "reply_log_probs", noted("pass", explanation.reply_log_probs))
        monkeypatch.setattr(backend.runtime.engine, "step", noted("step", backend.runtime.engine.step))
        talking = backend.generate(request_for(backend, "the lazy dog", max_tokens=200))
        ids = [*(await anext(talking)).token_ids]
        beside = await backend.explain(request)
        while_talking = len(happened)
        async for chunk in talking:
            ids += chunk.token_ids
        assert tuple(ids) == before.token_ids and beside == alone
        return happened[:while_talking]

    order = asyncio.run(main())
    assert order.count("pass") == 4
    assert all(pair != ("pass", "pass") for pair in pairwise(order)), order


def test_an_explanation_of_a_folder_that_is_gone_is_an_adapter_error_and_replies_go_on(backend, tmp_path):
    async def main():
        lesson = await lesson_about(backend, "hello")
        request = ExplainRequest(lesson.experience, (), AdapterRef(f"u_{1:032x}@1-{1:016x}", str(tmp_path / "gone")))
        with pytest.raises(AdapterError):
            await backend.explain(request)
        backend.learner = object()
        with pytest.raises(UnsupportedParameter, match="object cannot explain"):
            await backend.explain(request)
        return await reply(backend, "hello")

    assert asyncio.run(main()).token_ids


def test_a_cancelled_explanation_ends_at_the_next_cut(backend, tmp_path, monkeypatch):
    begun, go, ended = threading.Event(), threading.Event(), []

    def slow(*args):
        try:
            begun.set()
            go.wait(10)
            yield Window()
            raise AssertionError("went on")
        finally:
            ended.append(True)

    async def main():
        lesson = await lesson_about(backend, "hello")
        (report,) = await backend.run_update([lesson], [None], [tmp_path])
        assert report.outcome is Outcome.APPLIED
        monkeypatch.setattr(local, "effect_of", slow)
        request = ExplainRequest(
            lesson.experience, (), AdapterRef(f"u_{1:032x}@1-{folder_digest(tmp_path)[:16]}", str(tmp_path))
        )
        task = asyncio.create_task(backend.explain(request))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]
        return await reply(backend, "hello")

    assert asyncio.run(main()).token_ids


def test_a_version_that_was_changed_on_the_disk_is_neither_explained_reviewed_nor_learned_on(backend, tmp_path):
    async def main():
        lesson = await lesson_about(backend, "the quick brown fox")
        (report,) = await backend.run_update([lesson], [None], [tmp_path])
        assert report.outcome is Outcome.APPLIED
        version = AdapterRef(f"u_{1:032x}@1-{folder_digest(tmp_path)[:16]}", str(tmp_path))
        assert await backend.review(ReviewRequest(version)) is not None
        weights = tmp_path / "adapter_model.safetensors"
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1  # another number, and finite
        weights.write_bytes(raw)
        with pytest.raises(AdapterCorrupt, match="it was changed"):
            await backend.explain(ExplainRequest(lesson.experience, (), version))
        with pytest.raises(AdapterCorrupt, match="it was changed"):
            await backend.explain(ExplainRequest(lesson.experience, (), version, version))
        with pytest.raises(AdapterCorrupt, match="it was changed"):
            await backend.review(ReviewRequest(version))
        out = tmp_path / "next"
        out.mkdir()
        with pytest.raises(AdapterCorrupt, match="it was changed"):
            await backend.run_update([lesson], [version], [out])

    asyncio.run(main())
