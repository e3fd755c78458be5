"""A tiny random model with a renderer of one id per character: fast, and every pass is exact to follow."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adapters_store.folder import folder_digest
from personalize.learner import HindsightLearner, Recipe
from personalize.model.base import BaseModel
from personalize.rendering.hindsight import with_block
from personalize.types import AdapterRef, Experience, LearningState, Lesson, Message, UpdateReport

VOCABULARY = 61


class CharacterRenderer:
    """One id per character; the block goes where the real renderer puts it."""

    end_ids = frozenset({0})

    def render(self, messages: Sequence[Message], follow_ups: Sequence[str] = ()) -> tuple[int, ...]:
        *before, last = messages
        told = [*before, Message(last.role, with_block(last.content, follow_ups))]
        text = "".join(f"{message.role[0]}>{message.content}\n" for message in told) + "a>"
        return tuple(ord(character) % VOCABULARY for character in text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(0x61 + i) for i in ids if i not in self.end_ids)

    def teacher_prompt(self, messages, prompt_ids, follow_ups) -> tuple[int, ...]:
        assert tuple(prompt_ids) == self.render(messages)
        return self.render(messages, follow_ups)


@pytest.fixture(scope="package")
def base() -> BaseModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    module = LlamaForCausalLM(config)
    return BaseModel(module, base_digest="0" * 64, renderer=CharacterRenderer())  # pyright: ignore[reportArgumentType]


def experience(number: int, follow_up: str = "shorter", length: int = 9) -> Experience:
    """Return turn ``number`` of some user: another question, another reply."""
    generator = torch.Generator().manual_seed(number)
    messages = (Message("user", f"tell me about {'abcdefgh'[number % 8]}{number}"),)
    completion = tuple(torch.randint(VOCABULARY, (length + number % 3,), generator=generator).tolist())
    return Experience(
        turn_id=f"{number:032x}",
        messages=messages,
        prompt_ids=CharacterRenderer().render(messages),
        completion_ids=completion,
        completion_mask=(1,) * len(completion),
        follow_up=follow_up,
    )


def run(learner: HindsightLearner, lessons, parents, out_dirs) -> tuple[UpdateReport, ...]:
    """Run an update to its end."""
    *_, last = learner.update(lessons, parents, out_dirs)
    assert last.reports is not None
    return last.reports


class Life:
    """One user's versions on disk, taught turn after turn without a store; ``user_id`` is what the learner hears."""

    def __init__(self, learner: HindsightLearner, folder: Path, user: int = 0, user_id: str = ""):
        self.learner, self.folder, self.user, self.user_id = learner, folder, user, user_id
        self.head: AdapterRef | None = None
        self.state = LearningState()
        self.turns: list[Experience] = []
        self.updates = 0

    def lesson(self, turn: Experience) -> Lesson:
        return Lesson(turn, tuple(self.turns), self.state, user_id=self.user_id)

    def out_dir(self) -> Path:
        self.updates += 1
        path = self.folder / f"user{self.user}" / str(self.updates)
        path.mkdir(parents=True)
        return path

    def accept(self, turn: Experience, report: UpdateReport, path: Path) -> None:
        self.turns.append(turn)
        self.state = report.state
        if report.outcome == "applied":
            self.head = AdapterRef(f"u_{self.user:032x}@{self.updates}-{folder_digest(path)[:16]}", str(path))

    def learn(self, turn: Experience) -> UpdateReport:
        path = self.out_dir()
        (report,) = run(self.learner, [self.lesson(turn)], [self.head], [path])
        self.accept(turn, report, path)
        return report


EVERY_TURN = Recipe(gate_nats=None, moot_share=None, lr=1e-2, replay=2, rehearse=0, num_steps=2, keep_moments=True)
