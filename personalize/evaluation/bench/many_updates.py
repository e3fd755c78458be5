"""Eight users' updates together: over our own steps one after another, and over as many plain PEFT steps."""

import tempfile
from pathlib import Path

from personalize.evaluation.bench.lessons import ONE_STEP, lesson, parents, update, warm_learner
from personalize.evaluation.bench.peer_training import PeftTrainer
from personalize.evaluation.bench.peers import peft_model
from personalize.evaluation.bench.rows import Row, missing
from personalize.evaluation.bench.samples import elapsed_ms, in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.subject import Subject
from personalize.evaluation.bench.update import fits

_OVER_PEFT, _OVER_OWN = "≥ 3", "≥ 1.2"


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure all users in one pass, each alone, and each by a PEFT step with the full prompt graph.

    The last two are timed for ``scale.alone`` of the users and told for all of them: every turn has the same lengths,
    so the others cost the same.
    """
    history, users, alone_users = scale.histories[0], scale.users, min(scale.alone, scale.users)
    names = [
        f"{users} PEFT steps with the full prompt graph over {users} users' updates together",
        f"{users} updates one after another over {users} users' updates together",
    ]
    if not fits(subject, history, scale.reply):
        return missing(names, f"{history} tokens of history do not fit the model's context")
    lessons = [lesson(subject.base, user, history, scale.reply, ONE_STEP) for user in range(users)]
    learner, peer = warm_learner(subject.base, ONE_STEP), PeftTrainer(peft_model(subject, users), users, ONE_STEP)
    with parents(subject, users) as refs, tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def alone() -> None:
            for one, ref in zip(lessons[:alone_users], refs[:alone_users], strict=True):
                update(learner, [one], [ref], folder)

        def peers() -> None:
            for user, one in enumerate(lessons[:alone_users]):
                peer.step(user, subject.base, one.experience)

        sides = {
            "together": lambda: elapsed_ms(lambda: update(learner, lessons, refs, folder), subject.device),
            "alone": lambda: elapsed_ms(alone, subject.device) * users / alone_users,
            "PEFT": lambda: elapsed_ms(peers, subject.device) * users / alone_users,
        }
        samples = in_turn(sides, scale.rounds)
    goals = (subject.goal(_OVER_PEFT), subject.goal(_OVER_OWN))
    reason = f"one after another: {alone_users} of the {users} users timed" if alone_users < users else None
    medians = samples.medians()
    return [
        Row(name, samples.ratio(side, "together"), goal=goal, n=scale.rounds, reason=reason, samples=medians)
        for name, side, goal in zip(names, ("PEFT", "alone"), goals, strict=True)
    ]
