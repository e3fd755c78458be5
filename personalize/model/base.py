"""The frozen base model that serving and learning share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from personalize.errors import InvalidParameter, ModelError
from personalize.model.kernels import usable
from personalize.model.layers import ActiveRows, replace_linears
from personalize.model.masks import AttentionMask, MaskForm
from personalize.model.probes import PROBES
from personalize.model.rows import AdapterRows
from personalize.model.sharing import sharing
from personalize.model.slot_rows import SlotRows

if TYPE_CHECKING:
    from transformers import Cache

    from personalize.rendering.renderer import Renderer

DEFAULT_MAX_MODEL_LEN = 4096


class BaseModel:
    """A causal language model with frozen weights whose linear layers take another adapter in every row.

    Not thread-safe: the rows of the running forward are state of the model. One thread owns it.

    Attributes:
        module: the transformers model, in eval mode, nothing requires a gradient.
        renderer: messages <-> token ids; None where the model was built without a tokenizer.
        probes: questions that the model is good at and often asked, such as the gate asks it.
        base_digest: 64 hex digits; adapters belong to one of them.
        max_model_len: tokens that a prompt and its reply may take together.
        targets: module name -> (d_in, d_out) of every layer that can carry an update.
        vocab_size: width of the logits.
        mask_form: which attention masks the model wants.
        has_kernels: adapters are read through the Triton kernels.
        sharing: the targets, those together that share an input and one shrink.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        base_digest: str,
        renderer: "Renderer | None" = None,
        max_model_len: int | None = None,
        lora_kernels: bool = True,
        probes: Sequence[str] = PROBES,
    ):
        """Args: lora_kernels: use the Triton kernels where they can be used; False never does."""
        self.module: Any = module.eval().requires_grad_(False)
        self.renderer = renderer
        self.base_digest = base_digest
        self.probes = tuple(probes)
        self.config: Any = self.module.config.get_text_config(decoder=True)
        self.mask_form = MaskForm(self.config)
        self.max_model_len = _context(self.config, max_model_len)
        self._active = ActiveRows()
        self._decoder = self.module.get_decoder()
        self._head = self.module.get_output_embeddings()
        if self._head is None or self._decoder is self.module:
            raise ModelError(f"{type(module).__name__} is not a decoder with an output head")
        layers = replace_linears(self._decoder, _name_of(self._decoder, module), {self._head}, self._active)
        if not layers:
            raise ModelError(f"{type(module).__name__} has no plain linear layers (quantised ones are not supported)")
        self.targets = {name: (layer.in_features, layer.out_features) for name, layer in layers.items()}
        self.vocab_size: int = self._head.weight.shape[0]
        self.has_kernels = lora_kernels and usable(self.device, self.dtype)
        self.sharing = sharing(self.targets) if self.has_kernels else tuple((name,) for name in self.targets)

    @property
    def device(self) -> torch.device:
        return self._head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._head.weight.dtype

    @contextmanager
    def using(self, rows: AdapterRows | SlotRows | None) -> Iterator[None]:
        """Run forwards with ``rows``; always cleared at the end, also after an exception."""
        assert self._active.rows is None, "adapter rows are already in use: forwards must not nest"
        if isinstance(rows, AdapterRows):
            rows = (SlotRows.over(rows) if self.has_kernels else rows) if rows else None
        self._active.rows = rows
        try:
            yield
        finally:
            self._active.rows = None

    @contextmanager
    def pausing(self, pause: Callable[[], None]) -> Iterator[None]:
        """Call ``pause`` behind every linear layer and ``pausable`` of the passes inside, and again in their backward.

        ``pause`` runs without gradient and may run forwards of its own, with other rows. What the passes inside compute
        is the same bit for bit, unless it raises: then they raise it. On a CPU only: an accelerator computes
        gradients on a thread of its own, and later than it was told to.
        """
        assert self._active.pause is None, "passes are paused already"
        assert self.device.type == "cpu", f"passes on {self.device.type} cannot be paused"
        self._active.pause = pause
        try:
            yield
        finally:
            self._active.pause = None

    def pausable(self, y: Tensor) -> Tensor:
        """Return y unchanged; inside ``pausing`` this is one more place to pause, and so is the gradient of y."""
        return self._active.pausable(y)

    def hidden(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: AttentionMask | None = None,
        cache: "Cache | None" = None,
        rows: AdapterRows | SlotRows | None = None,
    ) -> Tensor:
        """Return the hidden states [N, T, d] after the final norm, before the head.

        Args:
            input_ids: [N, T].
            position_ids: [N, T]; None counts on from the cache.
            attention_mask: what the model's own forward takes: None, [N, L] of 0 and 1, or the masks of ``mask_form``.
            cache: a transformers cache, which the pass extends.
            rows: adapters; None keeps those of the surrounding ``using``, or the base.
        """
        with self.using(rows) if rows else nullcontext():
            output = self._decoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return output.last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V] of hidden states [..., d], with the model's own scaling and soft cap."""
        logits = self._head(hidden)
        if (scale := getattr(self.config, "logit_scale", None)) is not None:
            logits = logits * scale
        if (divisor := getattr(self.config, "logits_scaling", None)) is not None:
            logits = logits / divisor
        if (cap := getattr(self.config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.no_grad()
    def check(self) -> None:
        """Compare our way through the model with its own forward on a few tokens.

        Raises:
            ModelError: they differ: the architecture does something between decoder and head that we do not know, or
                its layers do not see whole rows.
        """
        ids = torch.arange(12, device=self.device).view(2, 6) % self.vocab_size
        positions = torch.arange(6, device=self.device).expand(2, 6)
        stock = self.module(input_ids=ids, use_cache=False).logits.float()
        masks = self.mask_form.masks(positions, 6, self.dtype)
        zeros = {
            name: (torch.zeros(2, d_in, 1, device=self.device), torch.zeros(2, 1, d_out, device=self.device))
            for name, (d_in, d_out) in self.targets.items()
        }
        ours = self.head(self.hidden(ids, positions, masks, rows=AdapterRows(zeros))).float()
        error = (ours - stock).abs().max() / stock.abs().max().clamp_min(1e-6)
        # A NaN must fail as well, hence "not <=".
        if not error <= (1e-3 if self.dtype == torch.float32 else 0.1):
            raise ModelError(f"{type(self.module).__name__}: our forward differs from the model's own by {error:.2g}")


def _name_of(part: nn.Module, whole: nn.Module) -> str:
    return next(name for name, module in whole.named_modules() if module is part)


def _context(config: Any, wanted: int | None) -> int:
    trained = getattr(config, "max_position_embeddings", None) or DEFAULT_MAX_MODEL_LEN
    longest = min([trained, *_rope_limits(config)])
    if wanted is None:
        return min(longest, DEFAULT_MAX_MODEL_LEN)
    if not 2 <= wanted <= longest:
        raise InvalidParameter("max_model_len", wanted, f"2 to {longest}")
    return wanted


def _rope_limits(config: Any) -> Iterator[int]:
    """Yield the lengths beyond which the rotation of *all* rows of a batch would follow the longest row.

    Such rotations ("dynamic", "longrope") would let a neighbour's length change my logits.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    for rope in [parameters, *(value for value in parameters.values() if isinstance(value, dict))]:
        if rope.get("rope_type") in ("dynamic", "longrope"):
            limit = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            yield int(limit)
