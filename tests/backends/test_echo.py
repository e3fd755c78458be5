"""The backend without a model: prompts, replies, versions, limits."""

import asyncio
import json
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from adapters_store.folder import check_folder
from personalize.backends.echo import END, ByteRenderer, EchoBackend, read_header, write_folder
from personalize.errors import AdapterCorrupt, ContextTooLong
from personalize.types import (
    AdapterRef,
    Experience,
    GenerateRequest,
    LearningState,
    Lesson,
    Message,
    Outcome,
    SamplingParams,
)

RENDERER = ByteRenderer()
HELLO = (Message("user", "hello"),)


def ref(folder, number=3):
    return AdapterRef(f"u_{'a' * 32}@{number}-{'b' * 16}", str(folder))


def run(backend, messages=HELLO, adapter=None, **sampling):
    async def collect():
        request = GenerateRequest("r", RENDERER.render(messages), SamplingParams(**sampling), adapter)
        return [chunk async for chunk in backend.generate(request)]

    return asyncio.run(collect())


def lesson(follow_up="shorter", turn_id="t1", **state):
    prompt = RENDERER.render(HELLO)
    turn = Experience(turn_id, HELLO, prompt, (104, 105, END), (1, 1, 1), follow_up)
    return Lesson(turn, state=LearningState(**state))


def reports(backend, lessons, out_dirs, parents=None):
    return asyncio.run(backend.run_update(lessons, parents or [None] * len(lessons), out_dirs))


def test_the_block_is_in_the_last_user_message_and_gone_without_it():
    messages = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    told = RENDERER.decode(RENDERER.render(messages, ["be brief"]))
    assert "be brief" in told.partition("three")[2]
    assert RENDERER.render(messages, []) == RENDERER.render(messages)


def test_a_mark_typed_in_a_message_is_text():
    ids = RENDERER.render((Message("user", "\u0101 <258>"),))
    assert [i for i in ids if i > 255] == [258, 259]


def test_chunks_add_up_to_the_completion(tmp_path):
    write_folder(tmp_path, "seed")
    for adapter, version in ((None, "base"), (ref(tmp_path), "v3")):
        chunks = run(EchoBackend(), adapter=adapter)
        completion = chunks[-1].completion
        assert "".join(chunk.text for chunk in chunks) == completion.text == f"[{version}] You said: hello"
        assert tuple(i for chunk in chunks for i in chunk.token_ids) == completion.token_ids
        assert completion.token_ids[-1] == END and completion.stopped_by == "end_token"


@pytest.mark.parametrize(
    "sampling, text, stopped_by",
    [({"stop": ("said",)}, "[base] You ", "stop_string"), ({"max_tokens": 6}, "[base]", "length")],
)
def test_ends_without_end_token(sampling, text, stopped_by):
    completion = run(EchoBackend(), **sampling)[-1].completion
    assert (completion.text, completion.stopped_by) == (text, stopped_by)
    assert END not in completion.token_ids


def test_a_prompt_that_fills_the_context_is_refused():
    with pytest.raises(ContextTooLong, match="at most 6"):
        run(EchoBackend(max_model_len=7))
    assert run(EchoBackend(max_model_len=8))[-1].completion.stopped_by == "length"


def test_closing_the_iterator_frees_the_row_and_the_adapter(tmp_path):
    write_folder(tmp_path, "seed")
    backend = EchoBackend()

    async def cut(num_chunks):
        chunks = backend.generate(GenerateRequest("r", RENDERER.render(HELLO), adapter=ref(tmp_path)))
        for _ in range(num_chunks):
            await anext(chunks)
        assert backend.num_running == (1 if num_chunks else 0)
        await chunks.aclose()
        return backend.num_running, dict(backend.in_use)

    for num_chunks in (0, 1, 5):
        assert asyncio.run(cut(num_chunks)) == (0, {})


def test_an_update_writes_a_folder_that_everybody_can_open(tmp_path):
    backend = EchoBackend()
    first, second = tmp_path / "a", tmp_path / "b"
    one, two = reports(backend, [lesson(), lesson("longer", "t2")], [first, second])
    assert (one.outcome, two.outcome) == (Outcome.APPLIED, Outcome.APPLIED)
    assert one.state == LearningState(("t1",), ("t1",), 1)
    info = check_folder(first, max_bytes=10_000)
    assert info.rank == 2
    weights = load_file(first / "adapter_model.safetensors")
    assert {name.rpartition(".lora_")[2]: value.shape for name, value in weights.items()} == {
        "A.weight": (2, 4),
        "B.weight": (4, 2),
    }
    assert all(abs(value).max() <= 1 for value in weights.values())
    assert json.loads((first / "adapter_config.json").read_text())["r"] == 2
    assert (first / "adapter_model.safetensors").read_bytes() != (second / "adapter_model.safetensors").read_bytes()
    assert set(load_file(first / "optimizer.safetensors")) == {
        f"{n}.{m}" for n in weights for m in ("exp_avg", "exp_avg_sq")
    }


def test_equal_lessons_on_equal_parents_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        reports(EchoBackend(), [lesson()], [tmp_path / name])
    a, b = (tmp_path / name / "adapter_model.safetensors" for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()
    reports(EchoBackend(), [lesson()], [tmp_path / "c"], [ref(tmp_path / "a")])
    assert (tmp_path / "c" / "adapter_model.safetensors").read_bytes() != a.read_bytes()


def test_what_the_judge_refuses_and_what_does_not_fit_writes_nothing(tmp_path):
    refusing = EchoBackend(lambda lesson: Outcome.REJECTED_KL)
    (report,) = reports(refusing, [lesson(block=("t0",))], [tmp_path / "a"])
    assert (report.outcome, report.state.block) == (Outcome.REJECTED_KL, ("t0",))
    (report,) = reports(EchoBackend(max_model_len=200), [lesson("x" * 200)], [tmp_path / "a"])
    assert report.outcome is Outcome.SKIPPED_TOO_LONG
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: b"\xff" * 64, lambda raw: raw + b"x"]
)
def test_a_damaged_folder_is_refused_and_nobody_else_is_hurt(tmp_path, damage):
    write_folder(tmp_path, "seed")
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(AdapterCorrupt):
        read_header(file)
    backend = EchoBackend()
    with pytest.raises(AdapterCorrupt):
        run(backend, adapter=ref(tmp_path))
    assert (backend.num_running, dict(backend.in_use)) == (0, {})
    assert run(backend)[-1].completion.text == "[base] You said: hello"


def test_it_loads_no_torch():
    code = (
        "import sys, personalize, personalize.backends.echo, personalize.service, personalize.access;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
