"""PEFT adapter folders: ``adapter_config.json`` and ``adapter_model.safetensors`` <-> tensors.

A folder is read as if a stranger had written it: sizes before bytes, safetensors only, the exact set of keys, shapes
and types that its own configuration and the base model imply, finite values.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from personalize.config import LoraSettings
from personalize.errors import AdapterCorrupt, AdapterMismatch
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors, initial_lora
from personalize.model.weights_file import read_bounded, read_weights
from personalize.types import AdapterRef

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_RANK = 512
_MAX_CONFIG_BYTES = 1 << 20
_KEY = "base_model.model.{name}.lora_{part}.weight"

# Keys of a PEFT configuration that do not change what plain LoRA computes. Every other key must be unset.
_NEUTRAL = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "init_lora_weights", "megatron_core",
    "qalora_group_size", "layers_pattern",
}  # fmt: skip


def new_adapter(base: BaseModel, settings: LoraSettings, seed: int) -> LoraTensors:
    """Return an untrained adapter for ``base`` on its device, fp32; the same seed gives the same A.

    Raises:
        AdapterMismatch: ``target_modules`` names nothing in this model.
    """
    wanted = settings.target_modules
    names = list(base.targets) if wanted == "all-linear" else _matching(wanted, base.targets)
    shapes = {name: base.targets[name] for name in names}
    return initial_lora(shapes, r=settings.r, lora_alpha=settings.lora_alpha, seed=seed, device=base.device)


def write_adapter(folder: Path, tensors: LoraTensors, base: BaseModel) -> None:
    """Write a PEFT folder that ``PeftModel.from_pretrained`` opens; weights in fp32.

    Raises:
        AdapterMismatch: the tensors do not fit ``base``.
        AdapterCorrupt: a value is not finite.
    """
    _check_tensors(tensors, base, "the adapter")
    weights = {
        _KEY.format(name=name, part=part): tensor.detach().to("cpu", torch.float32).contiguous()
        for name in tensors.a
        for part, tensor in (("A", tensors.a[name]), ("B", tensors.b[name]))
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(_config(tensors, base), indent=2) + "\n")
    (folder / WEIGHTS_FILE).write_bytes(save(weights, metadata={"format": "pt"}))


def read_version(ref: AdapterRef, base: BaseModel, *, max_rank: int = MAX_RANK) -> LoraTensors:
    """Read the folder of a published version as ``read_adapter`` does, and only if it holds what was published.

    The name carries the first 64 bits of the content's digest and comes from the index, not from the folder: what
    changes the folder, be it a disk or somebody who can write to it, does not change the name, as it could the
    folder's own manifest. The bytes are digested as they are read, once.

    Raises:
        AdapterCorrupt, AdapterMismatch: as ``read_adapter``; AdapterCorrupt too where the content is another.
    """
    return read_adapter(ref.path, base, max_rank=max_rank, digest=ref.name.rpartition("-")[2])


def read_adapter(
    folder: Path | str, base: BaseModel, *, max_rank: int = MAX_RANK, digest: str | None = None
) -> LoraTensors:
    """Read a PEFT folder into fp32 tensors on the CPU.

    Args:
        digest: the first hex digits of what ``content_digest`` has to be; None takes any content.

    Raises:
        AdapterCorrupt: damaged, incomplete, not finite, or not of this digest.
        AdapterMismatch: sound, but made for another base, beyond ``max_rank``, or not plain LoRA.
    """
    folder = Path(folder)
    raw = read_bounded(folder / CONFIG_FILE, _MAX_CONFIG_BYTES)
    config = _parse_config(raw, folder)
    r, alpha = _rank_and_alpha(config, folder, max_rank)
    names = _matching(config["target_modules"], base.targets, folder)
    expected = _expected_shapes(names, base, r)

    with ThreadPoolExecutor(1, thread_name_prefix="adapter-digest") as beside:
        digesting: list[Future[str]] = []

        def begin(weights: bytes) -> None:
            if digest is not None:  # takes as long as all the rest, and needs no lock
                digesting.append(beside.submit(content_digest, raw, weights))

        try:
            content = read_weights(folder / WEIGHTS_FILE, expected, begin)
            tensors = _as_lora(_loaded(content, folder), names, r, alpha)
            _check_tensors(tensors, base, folder.name)
        finally:  # whatever is wrong with changed bytes is that they were changed
            for found in (future.result() for future in digesting):
                if not found.startswith(digest or ""):
                    held = f"{folder.name} holds content {found[:16]}…"
                    raise AdapterCorrupt(f"{held}; expected {digest}…: it was changed")
    return tensors


def _loaded(content: bytes, folder: Path) -> dict[str, Tensor]:
    try:
        return load(content)
    except Exception as error:  # SafetensorError is not a public class
        raise AdapterCorrupt(f"{folder.name}/{WEIGHTS_FILE}: {error}") from error


def content_digest(config: bytes, weights: bytes) -> str:
    """Return SHA-256 (hex) over configuration and weights as the store computes it when it publishes a version."""
    digest = hashlib.sha256()
    for field in (b"adapter/1", CONFIG_FILE.encode(), config, WEIGHTS_FILE.encode(), weights):
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)  # not joined with its length: that would copy the weights
    return digest.hexdigest()


def _as_lora(loaded: Mapping[str, Tensor], names: Iterable[str], r: int, alpha: float) -> LoraTensors:
    def part(letter: str) -> dict[str, Tensor]:
        return {name: loaded[_KEY.format(name=name, part=letter)].to(torch.float32) for name in names}

    return LoraTensors(r, alpha, part("A"), part("B"))


def _check_tensors(tensors: LoraTensors, base: BaseModel, label: str) -> None:
    if not tensors.a or list(tensors.a) != list(tensors.b):
        raise AdapterMismatch(f"{label}: A and B must exist for the same modules, at least one")
    for name, a in tensors.a.items():
        if name not in base.targets:
            raise AdapterMismatch(f"{label}: {name} is not a linear layer of this base model")
        d_in, d_out = base.targets[name]
        shapes = tuple(a.shape), tuple(tensors.b[name].shape)
        if shapes != ((tensors.r, d_in), (d_out, tensors.r)):
            expected = f"A {(tensors.r, d_in)} and B {(d_out, tensors.r)}"
            raise AdapterMismatch(f"{label}: {name} has shapes {shapes[0]} and {shapes[1]}, expected {expected}")
    if not tensors.is_finite():
        raise AdapterCorrupt(f"{label}: a weight is NaN or infinite")


def _config(tensors: LoraTensors, base: BaseModel) -> dict[str, Any]:
    alpha = tensors.lora_alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": tensors.r,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "target_modules": _target_endings(tensors.target_modules, base),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _target_endings(names: Iterable[str], base: BaseModel) -> list[str]:
    """Return the last parts of the names where they mean exactly these layers of the *whole* model, else the names.

    Engines other than PEFT know target modules by their last part only.
    """
    names = set(names)
    endings = {name.rpartition(".")[2] for name in names}
    meant = {name for name, _ in base.module.named_modules() if name.rpartition(".")[2] in endings}
    return sorted(endings if meant == names else names)


def _matching(wanted: Any, targets: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """Return the target layers that PEFT's rule for a list of names picks: equal, or ending in ``.<name>``."""
    label = folder.name if folder else "target_modules"
    if isinstance(wanted, str) and wanted == "all-linear":
        return list(targets)
    if not isinstance(wanted, list | tuple) or not wanted or not all(isinstance(item, str) for item in wanted):
        raise AdapterMismatch(f"{label}: target_modules = {wanted!r}; expected 'all-linear' or a list of module names")
    unused = [item for item in wanted if not any(_is_named(name, item) for name in targets)]
    if unused:
        raise AdapterMismatch(f"{label}: target module {unused[0]!r} is no linear layer of this base model")
    return [name for name in targets if any(_is_named(name, item) for item in wanted)]


def _is_named(name: str, item: str) -> bool:
    return name == item or name.endswith(f".{item}")


def _parse_config(raw: bytes, folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise AdapterCorrupt(f"{folder.name}/{CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterMismatch(f"{folder.name}: peft_type = {kind!r}; expected 'LORA'")
    if config.get("bias", "none") != "none" or not _starts_plainly(config.get("init_lora_weights", True)):
        raise AdapterMismatch(f"{folder.name}: only plain LoRA without bias and with the standard start is supported")
    set_keys = [key for key, value in config.items() if key not in _NEUTRAL and value]
    if set_keys:
        raise AdapterMismatch(
            f"{folder.name}: {set_keys[0]} = {config[set_keys[0]]!r} is not supported; only plain LoRA"
        )
    if "target_modules" not in config:
        raise AdapterCorrupt(f"{folder.name}/{CONFIG_FILE}: target_modules is missing")
    return config


def _starts_plainly(init: Any) -> bool:
    """Whether this start of the training left the base weights as they are; the store takes the same ones."""
    return isinstance(init, bool | None) or init in ("gaussian", "orthogonal", "eva")


def _rank_and_alpha(config: Mapping[str, Any], folder: Path, max_rank: int) -> tuple[int, float]:
    r, alpha = config.get("r"), config.get("lora_alpha")
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise AdapterCorrupt(f"{folder.name}: r = {r!r}; expected a whole number from 1 to {max_rank}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise AdapterCorrupt(f"{folder.name}: lora_alpha = {alpha!r}; expected a number above 0, below a million")
    check_rank(r, max_rank, folder.name)
    return r, alpha


def check_rank(r: int, max_rank: int, label: str) -> None:
    """Raise ``AdapterMismatch`` for a rank above the limit."""
    if r > max_rank:
        raise AdapterMismatch(f"{label}: r = {r} is above the limit max_lora_rank = {max_rank}")


def _expected_shapes(names: Iterable[str], base: BaseModel, r: int) -> dict[str, list[int]]:
    shapes = {}
    for name in names:
        d_in, d_out = base.targets[name]
        shapes[_KEY.format(name=name, part="A")] = [r, d_in]
        shapes[_KEY.format(name=name, part="B")] = [d_out, r]
    return shapes
