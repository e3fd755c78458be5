"""From a hub id or a local folder to a ``BaseModel``."""

from pathlib import Path
from typing import Any, Literal

import torch

from personalize.config import EngineSettings
from personalize.errors import ContextTooLong, ModelError, PersonalizeError
from personalize.model.base import BaseModel
from personalize.model.digest import folder_digest, weight_files
from personalize.model.probes import FILE, PROBES, read_probes
from personalize.types import Message

Device = Literal["cpu", "cuda", "auto"]
_SMALL_BYTES = 2 << 30


def load_base(
    name_or_path: str | Path, *, device: Device = "auto", settings: EngineSettings | None = None
) -> BaseModel:
    """Load a causal language model, its tokenizer and chat template, frozen.

    On a CPU everything is computed in fp32, whatever the file holds. On a GPU bf16 and fp32 files keep their type; an
    fp16 file becomes fp32, or bf16 above 2 GiB of weights. Code from the model's repository is never run.

    Args:
        name_or_path: hub id, local folder, or "pocket" for the embedded model.
        device: "auto" takes the GPU where there is one.

    Raises:
        ModelError: not found, not readable, not a causal language model, or of a kind that is not supported.
        TemplateError: the tokenizer has no usable chat template.
        InvalidParameter: ``max_model_len`` is beyond what the model was made for.
    """
    settings = settings or EngineSettings()
    try:
        return _load(str(name_or_path), _device(device), settings)
    except PersonalizeError:
        raise
    except Exception as error:  # transformers raises what it likes: OSError, ValueError, KeyError, SafetensorError …
        raise ModelError(f"cannot load the model {str(name_or_path)!r}: {_first_line(error)}") from error


def _load(name: str, device: torch.device, settings: EngineSettings) -> BaseModel:
    from transformers import AutoConfig

    from personalize.rendering.renderer import Renderer

    source = _source(name)
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    module = _module(source, config, device)
    # Only now are all files of a hub id on the disk.
    base = BaseModel(
        module.to(device),
        base_digest=folder_digest(_folder(source)),
        max_model_len=settings.max_model_len,
        lora_kernels=settings.lora_kernels,
        probes=read_probes(_folder(source)),
    )
    base.renderer = Renderer.from_pretrained(source, max_model_len=base.max_model_len)
    base.check()
    _check_probes(base)
    return base


def _check_probes(base: BaseModel) -> None:
    """Refuse a question of the model's own that leaves little room for its answer: every update would fail at it."""
    if base.probes == PROBES:
        return
    assert base.renderer is not None
    most = base.max_model_len // 2
    for question in base.probes:
        try:
            num_tokens = len(base.renderer.render((Message("user", question),)))
        except ContextTooLong:
            num_tokens = base.max_model_len
        if num_tokens > most:
            raise ModelError(
                f"{FILE}: {question[:60]!r} takes {num_tokens} tokens or more; allowed: {most}, half of the context"
            )


def _source(name: str) -> str:
    if name == "pocket":
        from personalize import pocket

        return str(pocket.path())
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():  # no hub id begins like this
        raise ModelError(f"cannot load the model {name!r}: no such folder; allowed: 'pocket', a hub id or a folder")
    return name


def _folder(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    from transformers.utils.hub import cached_file

    found = cached_file(source, "config.json")
    assert found is not None
    return Path(found).parent


def _module(source: str, config: Any, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    # SDPA has no soft cap on attention scores; the eager form has.
    soft_capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        config=config,
        dtype=_dtype(source, config, device),
        attn_implementation="eager" if soft_capped else "sdpa",
        trust_remote_code=False,
        output_loading_info=True,
    )
    module, report = loaded
    wrong = [*report["missing_keys"], *report["mismatched_keys"]]
    if wrong:
        raise ModelError(f"{source}: {len(wrong)} weights are missing or have another shape, such as {wrong[0]}")
    return module


def _dtype(source: str, config: Any, device: torch.device) -> torch.dtype:
    stored = getattr(config, "dtype", None) or torch.float32
    if device.type == "cpu" or stored == torch.float32:
        return torch.float32
    if stored != torch.float16:
        return torch.bfloat16
    small = Path(source).is_dir() and sum(path.stat().st_size for path in weight_files(Path(source))) <= _SMALL_BYTES
    return torch.float32 if small else torch.bfloat16


def _device(device: Device) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device = 'cuda', but torch finds no GPU; allowed here: 'cpu' or 'auto'")
    return torch.device(device)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
