"""Which layers are given the same input, so that one shrink serves them all."""

from collections.abc import Iterable, Mapping

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that transformers' decoders call one after the other with one tensor.

Where a model does not, nothing goes wrong: ``SlotRows`` shares a shrink only for the very same tensor.
"""


def sharing(targets: Mapping[str, tuple[int, int]]) -> tuple[tuple[str, ...], ...]:
    """Return the targets in groups that may share a shrink, most of them alone; every target is in one group.

    Args:
        targets: module name -> (d_in, d_out); layers of one group have one parent and one d_in.
    """
    groups: list[tuple[str, ...]] = []
    grouped: set[str] = set()
    for name in targets:
        if name not in grouped:
            groups.append(_group(name, targets))
            grouped |= set(groups[-1])
    return tuple(groups)


def _group(name: str, targets: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    parent, dot, last = name.rpartition(".")
    endings: Iterable[str] = next((one for one in _TOGETHER if last in one), (last,))
    names = [f"{parent}{dot}{ending}" for ending in endings]
    return tuple(one for one in names if one in targets and targets[one][0] == targets[name][0])
