"""One adapter's tensors, independent of any file and any slot."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False, slots=True)
class LoraTensors:
    """The weights of one adapter: y = W x + scaling * B (A x) for every target module.

    Attributes:
        r: rank, the same for all modules.
        lora_alpha: numerator of the scaling.
        a: module name -> A [r, d_in], fp32.
        b: module name -> B [d_out, r], fp32; the same names in the same order as ``a``.
    """

    r: int
    lora_alpha: float
    a: dict[str, Tensor]
    b: dict[str, Tensor]

    @property
    def scaling(self) -> float:
        return self.lora_alpha / self.r

    @property
    def target_modules(self) -> tuple[str, ...]:
        return tuple(self.a)

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.parameters())

    def parameters(self) -> Iterator[Tensor]:
        """Yield A and B module by module, always in the same order."""
        for name, a in self.a.items():
            yield a
            yield self.b[name]

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield ``<module>.lora_A`` and ``<module>.lora_B`` in the order of ``parameters``."""
        for name, a in self.a.items():
            yield f"{name}.lora_A", a
            yield f"{name}.lora_B", self.b[name]

    def is_finite(self) -> bool:
        # What is not finite survives any sum, and a sum is read several times faster; only an overflow needs a second
        # look. One flag for all tensors: on an accelerator every .item() waits for the queue.
        sums = torch.stack([tensor.sum() for tensor in self.parameters()])
        if bool(torch.isfinite(sums).all()):
            return True
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in self.parameters()]).all())

    def copy(self, *, device: torch.device | str | None = None, requires_grad: bool = False) -> "LoraTensors":
        """Return a copy that shares no memory with this one; with ``requires_grad`` its tensors are leaves."""

        def duplicate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {
                name: tensor.detach().to(device=device or tensor.device, copy=True).requires_grad_(requires_grad)
                for name, tensor in tensors.items()
            }

        return LoraTensors(self.r, self.lora_alpha, duplicate(self.a), duplicate(self.b))


def initial_lora(
    shapes: Mapping[str, tuple[int, int]], *, r: int, lora_alpha: float, seed: int, device: torch.device | str = "cpu"
) -> LoraTensors:
    """Return an adapter that changes nothing yet: A kaiming-uniform(a=sqrt 5) as in PEFT, B zero.

    Args:
        shapes: module name -> (d_in, d_out).
        seed: the same seed gives the same A on every device (it is drawn on the CPU).
    """
    generator = torch.Generator().manual_seed(seed)
    a, b = {}, {}
    for name, (d_in, d_out) in shapes.items():
        bound = 1.0 / math.sqrt(d_in)  # kaiming_uniform_ with a = sqrt 5 and fan_in = d_in
        a[name] = torch.empty(r, d_in).uniform_(-bound, bound, generator=generator).to(device)
        b[name] = torch.zeros(d_out, r, device=device)
    return LoraTensors(r, lora_alpha, a, b)
