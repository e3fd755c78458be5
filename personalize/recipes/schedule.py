"""The learning rate over the course: warm-up, constant, linear decay to nothing."""

WARM_UP_STEPS = 60
DECAY_SHARE = 0.55


def rate(step: int, progress: float) -> float:
    """Return the factor on every base learning rate.

    Args:
        step: steps done.
        progress: share of the course that is over, 0 to 1.
    """
    return min(1.0, (step + 1) / WARM_UP_STEPS) * min(1.0, max(0.0, 1.0 - progress) / DECAY_SHARE)
