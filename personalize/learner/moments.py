"""Adam and its moments. A recipe may keep them beside a version: the next update then continues where it ended."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from personalize.learner.recipe import Recipe

FILE = "optimizer.safetensors"


def new_optimizer(parameters: list[Tensor], recipe: Recipe) -> torch.optim.Adam:
    """Return Adam over ``parameters``, without any moments yet."""
    return torch.optim.Adam(parameters, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, foreach=True)


def save_moments(folder: Path, optimizer: torch.optim.Adam, names: list[str]) -> None:
    """Write the moments of the parameters called ``names`` (in the optimizer's order) to ``folder``."""
    tensors = {}
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        state = optimizer.state[parameter]
        tensors |= {f"{name}.exp_avg": state["exp_avg"].cpu(), f"{name}.exp_avg_sq": state["exp_avg_sq"].cpu()}
        tensors["step"] = state["step"].cpu()
    save_file(tensors, folder / FILE)


def load_moments(path: Path, optimizer: torch.optim.Adam, names: list[str]) -> bool:
    """Restore the file that ``save_moments`` wrote; False, and nothing changed, where there is nothing that fits."""
    if not path.is_file():
        return False
    tensors = load_file(path)
    parameters = optimizer.param_groups[0]["params"]
    if not _fits(tensors, names, parameters):
        return False
    for name, parameter in zip(names, parameters, strict=True):
        optimizer.state[parameter] = {
            "step": tensors["step"].clone(),
            "exp_avg": tensors[f"{name}.exp_avg"].to(parameter.device),
            "exp_avg_sq": tensors[f"{name}.exp_avg_sq"].to(parameter.device),
        }
    return True


def _fits(tensors: dict[str, Tensor], names: list[str], parameters: list[Tensor]) -> bool:
    expected = {f"{name}.{kind}": p.shape for name, p in zip(names, parameters, strict=True) for kind in _KINDS}
    shapes = {name: tensor.shape for name, tensor in tensors.items() if name != "step"}
    return "step" in tensors and shapes == expected and all(bool(t.isfinite().all()) for t in tensors.values())


_KINDS = ("exp_avg", "exp_avg_sq")
