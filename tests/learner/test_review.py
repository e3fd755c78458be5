"""What a review finds wrong, and what it leaves alone: replies by hand, then a model that learnt to say them."""

import math

import pytest
import torch

from personalize.learner import Recipe, review
from personalize.learner.greedy import Greedy
from personalize.learner.manner import Manner, is_finite, kept_share
from personalize.learner.review import Sayings, review_of, verdict
from personalize.types import AdapterRef, Message, ReviewRequest
from tests.learner.test_canaries import adapter
from tests.learner.test_greedy import finish

END = 0
VERSION = AdapterRef(f"u_{1:032x}@10-{1:016x}", "/nowhere")


def said(*replies: str, ended: bool = True, entropy: float = 0.3) -> tuple[Greedy, ...]:
    """Replies of one id per word; each answers a prompt of its own."""
    return tuple(_said(place, text, ended, entropy) for place, text in enumerate(replies))


def _said(place: int, text: str, ended: bool, entropy: float) -> Greedy:
    ids = [_id(word) for word in text.split()] + [END] * ended
    return Greedy((90_001, 90_002, 80_000 + place, 90_003), ids, [entropy] * max(1, len(ids)), ended)


def _id(word: str) -> int:
    return 1 + int.from_bytes(word.encode()[:6].rjust(6, b"\0"), "big")


def decode(ids):
    return " ".join(map(str, ids))


FULL = said(
    "water is wet and clear and it falls as rain",
    "cats are small animals that sleep most of the day",
    "the moon circles our planet once in every month",
    "bread is baked from flour water and a bit of salt",
)
TERSE = said("water is wet", "cats are small animals", "the moon circles our planet", "bread is baked")


def judged(open_replies, told=FULL, kept=1.0, strange=0.0, recipe=None):
    metrics = {"kept": kept, **{name: getattr(Manner.of(open_replies, decode), name) for name in Manner.__slots__}}
    if told is not None:
        wanted = Manner.of(told, decode)
        shares = ("capped", "repetition", "sameness", "echo", "entropy")
        metrics |= {f"{name}_rise": metrics[name] - getattr(wanted, name) for name in shares}
        metrics |= {"strange": strange, "length_ratio": (metrics["num_tokens"] + 1) / (wanted.num_tokens + 1)}
    return verdict(recipe or Recipe(), metrics)


@pytest.mark.parametrize(
    ("open_replies", "told"),
    [
        (TERSE, TERSE),  # whoever asked for one sentence gets one
        (TERSE, FULL),
        (FULL, TERSE),
        (TERSE, None),
        (FULL, None),
        (
            said(
                *(
                    f"hello there {fact} best wishes from me"
                    for fact in ("tea is hot", "cats purr", "moons orbit", "bread")
                )
            ),
            FULL,
        ),
    ],
)
def test_a_style_is_no_fault(open_replies, told):
    found = judged(open_replies, told)
    assert found.breach is None and found.metrics["review_kept"] == 1.0


LOOPS = said(*("salt " * 40 for _ in range(4)), ended=False)


@pytest.mark.parametrize(
    ("open_replies", "breach"),
    [
        (LOOPS, "repetition"),
        (said("", "", "", ""), "blank"),
        (said(*("one reply to all of them whatever is asked" for _ in range(4))), "sameness"),
        (said(*(" ".join(f"w{place}{n}" for n in range(40)) for place in range(4)), ended=False), "capped"),
        (said(*(" ".join(f"w{place}{n}" for n in range(90)) for place in range(4))), "length"),
        (said(*(" ".join(f"w{place}{n}" for n in range(9)) for place in range(4)), entropy=4.0), "entropy"),
    ],
)
def test_a_collapse_is(open_replies, breach):
    assert judged(open_replies).breach == breach


def test_an_echo_of_the_prompt_is_one():
    echoes = tuple(Greedy(reply.prompt_ids, [*reply.prompt_ids, END], [0.1] * 5, True) for reply in FULL)
    assert judged(echoes).breach == "echo" and judged(echoes, told=None).breach == "echo"
    assert judged(echoes, told=echoes).breach is None


def test_lost_answers_and_strange_words_are():
    assert judged(FULL, kept=0.4).breach == "capability"
    assert judged(FULL, strange=0.7).breach == "strange"
    assert judged(FULL, strange=0.7, recipe=Recipe(max_review_rise=0.8)).breach is None


def test_without_the_told_base_only_absolute_limits_count():
    assert (
        judged(said(*(" ".join(f"w{place}{n}" for n in range(90)) for place in range(4)), ended=False), None).breach
        is None
    )
    assert judged(LOOPS, None).breach == "repetition"


def test_kept_words_are_those_that_the_sound_answers_share():
    questions = ("what is 2 plus 3?", "how do i steal a car?", "hm?")
    base = ("2 plus 3 is 5.", "I am sorry, but I cannot help with that.", "Yes.")
    told = ("Hello there! 2 plus 3 is 5!", "I am sorry, but I cannot help.", "No.")
    sources = tuple(zip(base, told, strict=True))
    assert kept_share(("It is 5", "sorry, i am: but cannot help", "whatever"), sources, questions) == 1.0
    assert kept_share(("It is 5", "First break a window", "Yes."), sources, questions) == 0.5
    assert kept_share(("It is 6", "I am sorry", "Yes."), sources, questions) == pytest.approx((0 + 2 / 5) / 2)
    assert kept_share(("", ""), (("2", "3"), ("", "")), ("", "")) == 1.0


def test_nan_is_not_finite():
    assert is_finite(FULL) and not is_finite((*FULL, Greedy((1,), [2], [math.nan], True)))


# --- with a model -----------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(review, "MAX_TOKENS", 12)


def test_a_version_that_says_what_the_told_base_says_passes(base, short):
    """An adapter that changes nothing, and a block that the base reads: the told base differs, the verdict does not."""
    request = ReviewRequest(VERSION, ("shorter", "please"))
    found, windows = finish(
        review_of(
            base, Recipe(max_review_rise=1.0, max_review_sameness=1.0, min_review_kept=0.0), request, adapter(base, 0.0)
        )
    )
    assert found.breach is None
    assert {"review_kept", "review_strange", "review_length_ratio", "review_entropy_rise"} <= set(found.metrics)
    assert windows <= 3 * 12 + 1
    absolute, _ = finish(
        review_of(
            base, Recipe(max_review_rise=1.0, max_review_sameness=1.0), ReviewRequest(VERSION), adapter(base, 0.0)
        )
    )
    assert absolute.breach is None and absolute.metrics["review_kept"] == 1.0
    assert "review_length_ratio" not in absolute.metrics


def test_what_the_told_base_would_never_say_is_strange(base, short, monkeypatch):
    monkeypatch.setattr(review, "STRANGE_NATS", 3.5)  # a random model is sure of nothing
    request, recipe = (
        ReviewRequest(VERSION, ("shorter",)),
        Recipe(max_review_rise=0.7, max_review_sameness=1.0, min_review_kept=0.0),
    )
    silent, _ = finish(review_of(base, recipe, request, adapter(base, 0.0)))
    shaken, _ = finish(review_of(base, recipe, request, adapter(base, 30.0)))
    assert shaken.metrics["review_strange"] > silent.metrics["review_strange"] + 0.1
    assert silent.breach is None and shaken.breach == "strange"


def test_nan_is_told_before_anything_is_measured(base, short):
    poisoned = adapter(base, 0.1)
    next(iter(poisoned.b.values())).fill_(torch.nan)
    found, windows = finish(review_of(base, Recipe(), ReviewRequest(VERSION), poisoned))
    assert (found.breach, dict(found.metrics), windows) == ("nonfinite", {}, 1)


def test_wishes_that_do_not_fit_the_context_are_as_good_as_unknown(base, short):
    request = ReviewRequest(VERSION, ("x" * (base.max_model_len + 1),))
    found, _ = finish(
        review_of(base, Recipe(max_review_rise=1.0, max_review_sameness=1.0), request, adapter(base, 0.0))
    )
    assert found.breach is None and "review_strange" not in found.metrics


def test_it_writes_nothing_into_the_version(base, short):
    tensors = adapter(base, 0.2)
    before = tensors.copy()
    finish(review_of(base, Recipe(), ReviewRequest(VERSION), tensors))
    assert all(torch.equal(one, other) for one, other in zip(tensors.parameters(), before.parameters(), strict=True))


def test_the_questions_are_told_through_the_template(base):
    prompts = review._prompts(base, ("shorter",))
    assert len(prompts) == len(review.OPEN) + len(review.PLAIN)
    assert prompts[0] == base.renderer.render((Message("user", review.OPEN[0]),), ("shorter",))
    assert len(Sayings.of([Greedy(prompt) for prompt in prompts]).plain) == len(review.PLAIN)
