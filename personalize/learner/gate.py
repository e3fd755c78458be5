"""Is there something to learn, and what is the teacher told?

The gate asks the *live* model: how far would it move some token of its own reply, had it known the follow-up? That is
large for a complaint, small for praise once the wish is learned, and, unlike the base model's own gap, large again for
a wish to go back to the default.

Shape letters: N trained positions, V vocabulary.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from personalize.functional import forward_kl
from personalize.types import Experience


def hindsight_gap(student_NV: Tensor, told_NV: Tensor) -> Tensor:
    """KL(model told the follow-up ‖ model) at every position of the reply, [N] in nats; from log-probabilities."""
    return forward_kl(student_NV, told_NV)


def next_block(
    block: Sequence[Experience],
    newest: Experience,
    size: int,
    told: Callable[[Sequence[Experience]], Tensor],
) -> tuple[Experience, ...]:
    """Return the block after ``newest`` has entered it, at most ``size`` follow-ups, oldest first.

    Where one too many is in it, the one goes whose removal moves the teacher least on the newest reply: of two that
    say the same, the older. The newest always stays.

    Args:
        told: teacher log-probabilities [N, V] on the newest reply, when told these follow-ups.
    """
    members = [member for member in block if member.turn_id != newest.turn_id]
    while len(members) >= size:
        whole = told([*members, newest])
        moved = [
            float(forward_kl(told([*members[:i], *members[i + 1 :], newest]), whole).max()) for i in range(len(members))
        ]
        del members[moved.index(min(moved))]
    return (*members, newest)
