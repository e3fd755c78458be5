"""Shrink and expand in Triton: every row reads its own slot of the stacked adapters, where it lies.

They are used on a CUDA device, and only after they have agreed there with plain products (``trial``). Importing this
package does not import Triton.
"""

import importlib.util

import torch


def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the kernels run on ``device`` and give what plain products give, for a model of ``dtype``."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    from personalize.model.kernels.trial import agrees

    return agrees(device, dtype) and agrees(device, torch.float32)
