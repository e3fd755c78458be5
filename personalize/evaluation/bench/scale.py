"""How much is measured: the workloads of the table, and how often."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of all workloads; the defaults are those of the table.

    Attributes:
        rounds: rounds of every ratio.
        steps: decode steps of a side in one round.
        batch: rows that decode together.
        distinct: of how many users they are, one number after another.
        prompt: tokens of the short prompts; short, because a long cache hides what an adapter costs.
        new_tokens: tokens of every row where whole replies are generated.
        requests: requests of the staggered load.
        reply: tokens of the reply that an update learns from.
        histories: prompt tokens before that reply; the first one is the usual one.
        users: users whose updates run together.
        alone: of them, how many are timed one after another, ours and the peer's; each of the rest counts as much as
            these on average.
        recipe_rounds: rounds of the default recipe's whole update, which takes several times as long.
        num_streams: streams beside an update.
        stream_runs: runs of the streams beside an update.
        stream_tokens: tokens of every stream before and after the updates that are counted.
        loads: streams of the mixed load.
        load_replies: replies of each of them.
        long_prompt: history of the first token after a publish.
        known, warm: users of the memory measurement.
        store_users: users in the store.
        store_s: seconds of looking heads up.
        publishes_per_s: publishes beside that.
    """

    rounds: int = 5
    steps: int = 8
    batch: int = 16
    distinct: tuple[int, ...] = (1, 4, 16)
    prompt: int = 8
    new_tokens: int = 48
    requests: int = 32
    reply: int = 128
    histories: tuple[int, ...] = (256, 1024)
    users: int = 8
    alone: int = 8
    recipe_rounds: int = 1
    num_streams: int = 4
    stream_runs: int = 5
    stream_tokens: int = 8
    loads: tuple[int, ...] = (1, 4, 16)
    load_replies: int = 3
    long_prompt: int = 1024
    known: int = 10_000
    warm: int = 200
    store_users: int = 1_000_000
    store_s: float = 20.0
    publishes_per_s: float = 20.0
