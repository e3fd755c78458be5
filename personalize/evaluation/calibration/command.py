"""From a model's name to its calibration: what the command line calls."""

import torch

from personalize.config import EngineSettings, Settings
from personalize.evaluation.calibration.calibration import Calibration
from personalize.evaluation.calibration.preflight import Extent, Note, measure
from personalize.model.loading import load_base


def calibrate(
    settings: Settings, extent: Extent, *, num_threads: int | None = None, note: Note = lambda text: None
) -> Calibration:
    """Load the model that ``settings`` name and measure it on this thread; nothing is kept on disk.

    Args:
        num_threads: of torch; None leaves its own choice.

    Raises:
        ModelError: the model cannot be loaded, or its output is not finite.
        TemplateError: it has no chat template, or one that refuses a user message.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)  # as the device thread of serving does: a confident model's gradients underflow
    note(f"loading {settings.model}")
    base = load_base(settings.model, device=settings.device, settings=EngineSettings(num_threads=num_threads))
    return Calibration.of(settings.model, base.base_digest, measure(base, extent, note))
