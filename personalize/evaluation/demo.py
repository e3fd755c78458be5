"""The demo: three people teach one model three different habits, each in a dozen messages.

Everything goes through the public SDK. The closing line is JSON; the exit code is 1 when a goal is missed.
"""

import asyncio
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from rich.console import Console

from personalize.config import EngineSettings, ServiceSettings, Settings
from personalize.evaluation.rates import MAX_REPLY_TOKENS, Rates, measure
from personalize.evaluation.stage import Row, Stage, show_before_after
from personalize.evaluation.users import Chat, Said, SimulatedUser
from personalize.reporting.figures import Figure, measured, record
from personalize.service import Personalizer
from personalize.types import ChatRequest, Message, Outcome, Reply, SamplingParams
from personalize.world.preferences import Preference

FOLLOW_UPS = 12
MAX_FOLLOW_UPS_PER_CHAT = 1
TYPING_S = 3.0
"""A person needs that long to type the next message; the demo waits for an update no longer."""
ROWS = 64
"""Fresh prompts come by the hundred: on a CPU 64 rows decode twice as fast as 16, row for row."""
CHECKPOINTS = {0: 100, 4: 24, 8: 24, FOLLOW_UPS: 100}
"""Follow-ups -> fresh prompts measured there."""
QUESTION = "Tell me about rainbows."


@dataclass(slots=True)
class Person:
    """One member of the cast and what is known about him so far."""

    user: SimulatedUser
    learns: bool = True
    follow_ups: int = 0
    curve: list[tuple[int, Rates]] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    before: str = ""
    after: str = ""

    @property
    def name(self) -> str:
        return self.user.name


def cast(seed: int = 0) -> list[Person]:
    """Return three users with two wishes each, no dimension shared by all three, and one with learning off."""

    def person(name: str, *wishes: tuple[str, str], learns: bool = True) -> Person:
        return Person(SimulatedUser(name, tuple(Preference(*wish) for wish in wishes), seed), learns)

    return [
        person("ada", ("format", "bullets"), ("tone", "casual")),
        person("ben", ("greeting", "greeting"), ("format", "numbered")),
        person("cleo", ("tone", "formal"), ("example", "example")),
        person("dana", ("format", "bullets"), ("tone", "formal"), learns=False),
    ]


class Demo:
    """One run of the play."""

    def __init__(self, app: Personalizer, people: list[Person], stage: Stage):
        self.app = app
        self.people = people
        self.stage = stage
        self.update_ms: list[float] = []
        self.updates = 0
        self.unchanged = True
        self._fingerprints: dict[str, str] = {}

    async def run(self) -> None:
        """Measure, chat, measure again."""
        for person in self.people:
            person.before = await self._fresh_reply(person)
            await self._measure(person, 0)
        self._fingerprints = await self._fingerprint()
        while any(person.follow_ups < FOLLOW_UPS for person in self.people):
            for person in self.people:
                if person.follow_ups < FOLLOW_UPS:
                    await self._chat(person)
        for person in self.people:
            person.after = await self._fresh_reply(person)
            updates = await self.app.updates(person.name)
            self.updates += sum(update.outcome is Outcome.APPLIED for update in updates)

    async def _chat(self, person: Person) -> None:
        """Let one person have one chat of at most six turns."""
        chat, said = Chat(), person.user.opening()
        reply = await self._say(person, chat, said)
        for _ in range(min(MAX_FOLLOW_UPS_PER_CHAT, FOLLOW_UPS - person.follow_ups)):
            said = person.user.reaction(said, reply.text)
            reply = await self._say(person, chat, said)
            person.follow_ups += 1
            if person.follow_ups in CHECKPOINTS:
                await self._measure(person, person.follow_ups)
        await self.app.settled(person.name)  # an update that took longer than the typing is still this person's
        await self._check_others(person)

    async def _say(self, person: Person, chat: Chat, said: Said) -> Reply:
        began = time.perf_counter()
        sampling = SamplingParams(temperature=1.0, max_tokens=MAX_REPLY_TOKENS, seed=len(chat.messages))
        request = ChatRequest(messages=chat.ask(said.text), user=person.name, sampling=sampling, learn=person.learns)
        (reply,) = await self.app.complete(request)
        reply_ms = (time.perf_counter() - began) * 1000
        chat.answer(reply.text)
        outcome = await self._while_typing(person, reply)
        if said.kind != "question":
            person.outcomes[outcome] += 1
        update_ms = self.update_ms[-1] if outcome is Outcome.APPLIED and self.update_ms else None
        self.stage.add(Row(person.name, person.follow_ups, said, reply, outcome, reply_ms, update_ms))
        return reply

    async def _while_typing(self, person: Person, reply: Reply) -> Outcome:
        """Wait for the update as long as the person would be typing, then check that nobody else has changed."""
        if reply.outcome is not Outcome.QUEUED:
            return reply.outcome
        await self.app.settled(person.name, timeout_s=TYPING_S)
        outcome = await self.app.outcome(reply.request_id)
        if outcome is Outcome.APPLIED:
            newest = (await self.app.updates(person.name, limit=1))[0]
            self.update_ms.append(newest.metrics["update_ms"])
            await self._check_others(person)
        return outcome

    async def _check_others(self, person: Person) -> None:
        now = await self._fingerprint()
        others = [name for name in now if name != person.name]
        self.unchanged &= all(now[name] == self._fingerprints[name] for name in others)
        self._fingerprints = now

    async def _fingerprint(self) -> dict[str, str]:
        """Return what every user is served with: version digest and logits on fixed prompts, in one mixed batch."""
        return await self.app.fingerprint([person.name for person in self.people])

    async def _measure(self, person: Person, follow_ups: int) -> None:
        rates = await measure(self.app, person.name, person.user.preferences, CHECKPOINTS[follow_ups])
        person.curve.append((follow_ups, rates))
        share = f"{rates.joint:.0%} of fresh replies hold both wishes"
        self.stage.note(f"{person.name}, after {follow_ups} follow-ups: {share}")

    async def _fresh_reply(self, person: Person) -> str:
        sampling = SamplingParams(temperature=1.0, max_tokens=MAX_REPLY_TOKENS, seed=1)
        messages = (Message("user", QUESTION),)
        (reply,) = await self.app.complete(ChatRequest(messages, person.name, sampling, learn=False))
        return reply.text


def summary(demo: Demo) -> dict[str, float | int | bool]:
    """Return the closing figures."""
    learners = [person for person in demo.people if person.learns]
    control = next(person for person in demo.people if not person.learns)
    first, last = [p.curve[0][1] for p in learners], [p.curve[-1][1] for p in learners]
    return {
        "preference_rate_before": round(mean(rates.joint for rates in first), 4),
        "preference_rate_after": round(mean(rates.joint for rates in last), 4),
        "preference_mean_after": round(mean(rates.mean for rates in last), 4),
        "worst_user_after": round(min(rates.joint for rates in last), 4),
        "follow_ups": FOLLOW_UPS,
        "updates": demo.updates,
        "update_ms_p50": round(median(demo.update_ms), 1) if demo.update_ms else 0.0,
        "cap_share": round(mean(rates.capped for rates in last), 4),
        "other_users_unchanged": demo.unchanged,
        "control_user_drift": round(abs(control.curve[-1][1].mean - control.curve[0][1].mean), 4),
    }


GOALS = {
    "preference_rate_before": ("<=", 0.1),
    "preference_rate_after": (">=", 0.9),
    "worst_user_after": (">=", 0.85),
    "follow_ups": ("<=", 12),
    "cap_share": ("<=", 0.01),
    "other_users_unchanged": (">=", True),
    "control_user_drift": ("<=", 0.03),
}


def missed(closing: dict[str, float | int | bool]) -> list[str]:
    """Return the names of the goals that ``closing`` misses."""
    return [
        name
        for name, (relation, goal) in GOALS.items()
        if not (closing[name] <= goal if relation == "<=" else closing[name] >= goal)
    ]


async def play(output: Path, console: Console, seed: int = 0) -> dict[str, float | int | bool]:
    """Run the demo once in a fresh home; write the plot to ``output``; return the closing figures."""
    people = cast(seed)
    with tempfile.TemporaryDirectory() as home:
        service, engine = ServiceSettings(max_tokens=MAX_REPLY_TOKENS), EngineSettings(max_num_seqs=ROWS)
        settings = Settings(model="pocket", home=Path(home), service=service, engine=engine)
        async with Personalizer.open(settings=settings) as app:
            with Stage(console) as stage:
                demo = Demo(app, people, stage)
                await demo.run()
    show_before_after(console, QUESTION, people)
    output.mkdir(parents=True, exist_ok=True)
    plot(people, output / "preference-rate.png")
    console.print(f"plot: {output / 'preference-rate.png'}")
    return summary(demo)


def plot(people: list[Person], path: Path) -> None:
    """Draw the preference rate against follow-ups, one line per person."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.4), dpi=120, layout="constrained")
    for person in people:
        wishes = " + ".join(one.value for one in person.user.preferences)
        label = f"{person.name}: {wishes}" + ("" if person.learns else " (learning off)")
        style = "-o" if person.learns else "--x"
        axes.plot([x for x, _ in person.curve], [rates.joint for _, rates in person.curve], style, label=label)
    axes.set(xlabel="follow-ups", ylabel="preference rate on fresh chats", ylim=(-0.03, 1.03))
    axes.axhline(0.9, color="grey", linewidth=0.8, linestyle=":", label="goal: 0.9 on average")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path)
    pyplot.close(figure)


def main(output: Path = Path("demo-output"), seed: int = 0, figures: Path | None = None) -> int:
    """Play, print the closing JSON line, record the figures; 0 when every goal is met, else 1."""
    console = Console()
    began = time.perf_counter()
    closing = asyncio.run(play(output, console, seed))
    seconds = time.perf_counter() - began
    console.print(f"{seconds:.0f} s")
    if figures is not None:
        rows = [_figure(name, closing) for name in closing]
        rows.append(measured("demo demo_s", round(seconds), unit="s", goal="<= 180", device="cpu", command="make demo"))
        record("loop", rows, root=figures)
    print(json.dumps(closing))
    for name in missed(closing):
        relation, goal = GOALS[name]
        console.print(f"[red]missed[/red] {name} = {closing[name]}, goal {relation} {goal}")
    return 1 if missed(closing) else 0


def _figure(name: str, closing: dict[str, float | int | bool]) -> Figure:
    goal = " ".join(map(str, GOALS[name])) if name in GOALS else None
    unit = {"update_ms_p50": "ms", "follow_ups": "", "updates": "", "other_users_unchanged": ""}.get(name, "share")
    return measured(
        f"demo {name}", closing[name], unit=unit, goal=goal, n=CHECKPOINTS[FOLLOW_UPS] * 3, device="cpu",
        command="make demo",
    )  # fmt: skip
