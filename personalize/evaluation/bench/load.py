"""Mixed load: everybody chats without a pause, and every finished reply is learnt from.

    bound = 1 / (1 + B·u / (N·t))

B streams, N tokens per reply, t a decode step at B rows, u one update, both measured alone in the same run. A reply is
followed up in the moment it is finished. Streams begin one after another within the time of a reply, so that in the
middle of the run there are always replies beside updates; with learning, the load is over when the last version serves.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles

from personalize.config import Settings
from personalize.evaluation.bench.decode import step_side
from personalize.evaluation.bench.lessons import ONE_STEP, experience, parents, warm_learner
from personalize.evaluation.bench.rows import LEFT_OUT, Row, missing
from personalize.evaluation.bench.samples import in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.school import Chatter, FollowUp, School, first_version
from personalize.evaluation.bench.serving import load_adapters
from personalize.evaluation.bench.streams import open_runtime
from personalize.evaluation.bench.subject import Subject
from personalize.evaluation.bench.update import fits, update_side
from personalize.learner import HindsightLearner
from personalize.runtime.device import Runtime
from personalize.types import GenerateRequest, SamplingParams
from personalize.updates.storage import open_store

_KEPT = "≥ 0.8"
_FRESH = {"p50": "≤ 1", "p95": "≤ 3"}
_GOAL_LOADS = (1, 4, 16)


@dataclass(slots=True)
class Run:
    """What one run of the load came to.

    Attributes:
        wall_s: from the first request to the last reply and, with learning, to the last version.
        replies_s: wall time of every reply.
        freshness_s: see ``School``; empty without learning.
    """

    wall_s: float = 0.0
    replies_s: list[float] = field(default_factory=list)
    freshness_s: list[float] = field(default_factory=list)


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure every number of streams in ``scale.loads``; what else has a goal is a row that says it was left out."""
    history = scale.histories[0]
    if not fits(subject, history, scale.reply):
        names = [_kept_name(num) for num in scale.loads]
        return missing(names, f"{history} tokens of history do not fit the model's context")
    learner = warm_learner(subject.base, ONE_STEP)
    rows = [row for streams in scale.loads for row in _measure(subject, scale, learner, streams)]
    others = [streams for streams in _GOAL_LOADS if streams not in scale.loads]
    return [*rows, *(row for streams in others for row in _left_out(subject, streams))]


def _left_out(subject: Subject, streams: int) -> list[Row]:
    names = {_kept_name(streams): _KEPT, **{_fresh_name(word, streams): goal for word, goal in _FRESH.items()}}
    return [Row(name, None, goal=goal, reason=LEFT_OUT) for name, goal in names.items() if subject.goal(goal)]


def _kept_name(streams: int) -> str:
    return f"throughput kept with learning, {streams} streams, over the bound"


def _fresh_name(word: str, streams: int) -> str:
    return f"freshness {word} with learning, {streams} streams, in replies"


def _measure(subject: Subject, scale: Scale, learner: HindsightLearner, streams: int) -> list[Row]:
    step_ms, update_ms = _alone(subject, scale, streams)
    without = asyncio.run(_run(subject, scale, None, streams, step_ms))
    learning = asyncio.run(_run(subject, scale, learner, streams, step_ms))
    kept = without.wall_s / learning.wall_s
    bound = 1 / (1 + streams * update_ms / (scale.reply * step_ms))
    samples = {
        "decode step": step_ms, "update": update_ms, "bound (share)": bound, "kept (share)": kept,
        "reply": median(learning.replies_s) * 1000, "updates (number)": len(learning.freshness_s),
    }  # fmt: skip
    rows = [
        Row(
            figure=_kept_name(streams),
            value=kept / bound,
            goal=subject.goal(_KEPT),
            n=len(learning.replies_s),
            reason=f"absolute share {kept:.3f}, bound {bound:.3f}",
            samples=samples,
            curve=("throughput kept over the bound, by streams", streams),
        )
    ]
    return [*rows, *_freshness(subject, streams, learning)]


def _alone(subject: Subject, scale: Scale, streams: int) -> tuple[float, float]:
    """Return the decode step at so many rows behind the load's history, and one update, each by itself."""
    history = scale.histories[0]
    engine = subject.engine(streams)
    turn = experience(subject.base, 1, history, scale.reply)
    with parents(subject, 1) as (parent,):
        sides = {
            "step": step_side(subject, engine, load_adapters(engine, streams), scale, prompt=len(turn.prompt_ids)),
            "update": update_side(subject, ONE_STEP, turn, parent),
        }
        samples = in_turn(sides, max(1, scale.rounds // 2))
    engine.close()
    return samples.median("step"), samples.median("update")


def _freshness(subject: Subject, streams: int, learning: Run) -> list[Row]:
    reply_s, fresh = median(learning.replies_s), learning.freshness_s
    p95 = quantiles(fresh, n=20, method="inclusive")[-1] if len(fresh) > 1 else fresh[0]
    return [
        Row(
            figure=_fresh_name(word, streams),
            value=seconds / reply_s,
            goal=subject.goal(_FRESH[word]),
            n=len(fresh),
            samples={"freshness": seconds * 1000, "reply": reply_s * 1000},
        )
        for word, seconds in (("p50", median(fresh)), ("p95", p95))
    ]


async def _run(subject: Subject, scale: Scale, learner: HindsightLearner | None, streams: int, step_ms: float) -> Run:
    runtime = open_runtime(subject, streams)
    with tempfile.TemporaryDirectory() as home:
        store = open_store(Settings(home=Path(home)))
        try:
            turns = [experience(subject.base, number, scale.histories[0], scale.reply) for number in range(streams)]
            chatters = [await first_version(runtime, store, number, turn) for number, turn in enumerate(turns)]
            school = None if learner is None else School(runtime, learner, store)
            return await _chat(runtime, chatters, school, scale, step_ms)
        finally:
            await asyncio.to_thread(runtime.close)
            store.close()


async def _chat(
    runtime: Runtime, chatters: Sequence[Chatter], school: School | None, scale: Scale, step_ms: float
) -> Run:
    run, began = Run(), time.perf_counter()
    apart_s = scale.reply * step_ms / 1000 / len(chatters)
    try:
        await asyncio.gather(
            *(_replies(runtime, one, scale, school, run, place * apart_s) for place, one in enumerate(chatters))
        )
        if school is not None:
            await school.finish()
            run.freshness_s = school.freshness_s
        run.wall_s = time.perf_counter() - began
    finally:
        if school is not None:
            await school.stop()
    return run


async def _replies(
    runtime: Runtime, chatter: Chatter, scale: Scale, school: School | None, run: Run, after_s: float
) -> None:
    await asyncio.sleep(after_s)
    for number in range(scale.load_replies):
        began = time.perf_counter()
        ids = await _reply(runtime, chatter, number)
        run.replies_s.append(time.perf_counter() - began)
        if school is not None:
            turn = replace(chatter.turn, turn_id=f"{number:016x}{chatter.user_id[:16]}", completion_ids=tuple(ids))
            school.teach(FollowUp(chatter, turn))


async def _reply(runtime: Runtime, chatter: Chatter, number: int) -> Sequence[int]:
    sampling = SamplingParams(temperature=1.0, max_tokens=len(chatter.turn.completion_ids), seed=number)
    request = GenerateRequest(f"{chatter.user_id}-{number}", chatter.turn.prompt_ids, sampling, chatter.head)
    ids = [token async for chunk in runtime.generate(request) for token in chunk.token_ids]
    if len(ids) != len(chatter.turn.completion_ids):
        raise RuntimeError(f"a reply has {len(ids)} tokens, not {len(chatter.turn.completion_ids)}")
    return ids
