"""What a servable adapter folder is: PEFT's two files, plain LoRA, and nothing a loader would trip over.

Checked from the configuration and the safetensors header alone. The rules are those that stock PEFT needs to open
the folder and that vLLM publishes for adapters (``vllm/lora/peft_helper.py``, ``vllm/config/lora.py``): ``r``,
``lora_alpha`` and ``target_modules`` present, no ``modules_to_save``, no DoRA, no bias, keys that begin with
``base_model.model.``, and a rank that one of its ``max_lora_rank`` settings takes. rsLoRA is refused because the
store's other readers scale by lora_alpha / r.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapters_store.errors import AdapterCorrupt, AdapterMismatch
from adapters_store.header import TensorInfo, open_regular, parse_json, read_header
from adapters_store.limits import Limits
from adapters_store.types import FolderInfo

CONFIG, WEIGHTS, MANIFEST, MOMENTS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "manifest.json",
    "optimizer.safetensors",
)
KNOWN_FILES = frozenset((CONFIG, WEIGHTS, MANIFEST, MOMENTS, "README.md"))  # PEFT writes a README by itself
MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
DTYPES = frozenset(("F32", "BF16", "F16"))
MAX_CONFIG_BYTES = 2**20
WEIGHT_KEY = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\.lora_(?P<side>[AB])\.weight"
)

# Fields that say nothing about the weights, or that any value leaves plain LoRA.
NEUTRAL = frozenset(
    [
        "task_type",
        "peft_type",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "target_modules",
        "lora_alpha",
        "lora_dropout",
        "bias",
        "layers_pattern",
        "megatron_core",
        "qalora_group_size",
        "init_lora_weights",
        "auto_mapping",
    ]
)
PLAIN_INIT = (True, False, None, "gaussian", "orthogonal", "eva")  # the others also change the base weights


def check_folder(path: Path | str, *, max_bytes: int = Limits().max_adapter_bytes) -> FolderInfo:
    """Return what the adapter folder holds, from its configuration and header; no tensor is loaded.

    Raises:
        AdapterCorrupt: damaged, incomplete or hostile: links, unknown files, a header that does not fit its file.
        AdapterMismatch: sound, but not plain LoRA of an allowed rank.
    """
    path = Path(path)
    _check_names(path)
    config = _read_config(path / CONFIG)
    rank, alpha, targets = _check_config(config)
    tensors = read_header(path / WEIGHTS, max_bytes)
    modules = _check_pairs(tensors, rank)
    return FolderInfo(
        rank=rank,
        lora_alpha=alpha,
        target_modules=targets,
        modules=modules,
        dtypes=frozenset(info.dtype for info in tensors.values()),
        max_lora_rank=next(allowed for allowed in MAX_LORA_RANKS if rank <= allowed),
        num_bytes=sum((path / name).stat().st_size for name in (CONFIG, WEIGHTS)),
    )


def check_moments(path: Path, max_bytes: int) -> None:
    """Check the optimizer's file as a safetensors file; its keys are the learner's affair."""
    read_header(path, 3 * max_bytes)


def folder_digest(path: Path) -> str:
    """Return SHA-256 (hex) over configuration and weights as tagged, length-prefixed fields."""
    digest = hashlib.sha256()
    for field in (b"adapter/1", CONFIG.encode()):
        _absorb(digest, field)
    _absorb_file(digest, path / CONFIG)
    _absorb(digest, WEIGHTS.encode())
    _absorb_file(digest, path / WEIGHTS)
    return digest.hexdigest()


def moments_digest(path: Path) -> str:
    """Return SHA-256 (hex) of the optimizer's file, under a tag of its own."""
    digest = hashlib.sha256()
    _absorb(digest, b"moments/1")
    _absorb_file(digest, path)
    return digest.hexdigest()


def copy_folder(source: Path, target: Path, max_bytes: int) -> None:
    """Copy configuration and weights, following no link.

    Raises:
        AdapterCorrupt: one of them is no plain file, or larger than ``max_bytes``.
    """
    for name in (CONFIG, WEIGHTS):
        with open(open_regular(source / name, max_bytes), "rb") as read:
            descriptor = os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as write:
                shutil.copyfileobj(read, write, 2**20)


def check_fit(
    info: FolderInfo, expected: Mapping[str, tuple[int, int]] | None = None, max_rank: int | None = None
) -> None:
    """Check a sound folder against the base that it is to be served on.

    Args:
        expected: the base's modules as module name -> (d_in, d_out), if they are known.
        max_rank: highest rank that is served, if it is known.

    Raises:
        AdapterMismatch: a module that the base does not have, or has in another shape; fewer modules than the
            configuration names in this base; a rank above the limit.
    """
    if max_rank is not None and info.rank > max_rank:
        raise AdapterMismatch(f"r = {info.rank}; allowed here: 1 to {max_rank}")
    if expected is None:
        return
    for module, shape in info.modules.items():
        if module not in expected:
            raise AdapterMismatch(f"the base has no module {module!r}")
        if tuple(expected[module]) != shape:
            raise AdapterMismatch(f"module {module!r} is {shape} in the adapter, {tuple(expected[module])} in the base")
    missing = sorted(_named(info.target_modules, expected) - info.modules.keys())
    if missing:
        raise AdapterMismatch(f"target_modules names {missing[0]!r} in the base, which the adapter has no tensors for")


def _named(targets: tuple[str, ...] | str, modules: Iterable[str]) -> set[str]:
    """Return the modules that a configuration names by PEFT's rule: equal to an item, or ending in ``.<item>``.

    Raises:
        AdapterMismatch: an item that names nothing; a pattern, which would be a stranger's program to run.
    """
    if targets == "all-linear":
        return set(modules)
    if isinstance(targets, str):
        raise AdapterMismatch(f"target_modules = {targets[:80]!r}; allowed: 'all-linear' or a list of module names")
    by_item = {item: {name for name in modules if name == item or name.endswith(f".{item}")} for item in targets}
    for item, names in by_item.items():
        if not names:
            raise AdapterMismatch(f"target_modules names {item[:80]!r}, and the base has no such module")
    return set().union(*by_item.values())


def _check_names(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        raise AdapterCorrupt(f"{path.name!r} is not a folder")
    for entry in os.scandir(path):
        if entry.name not in KNOWN_FILES or not entry.is_file(follow_symlinks=False):
            raise AdapterCorrupt(f"unexpected {entry.name[:80]!r}; allowed: plain files named {sorted(KNOWN_FILES)}")
    for name in (CONFIG, WEIGHTS):
        if not (path / name).exists():
            raise AdapterCorrupt(f"{name} is missing")


def _read_config(path: Path) -> dict[str, Any]:
    with open(open_regular(path, MAX_CONFIG_BYTES), "rb") as file:
        return parse_json(path.name, file.read())


def _check_config(config: dict[str, Any]) -> tuple[int, float, tuple[str, ...] | str]:
    """Return rank, alpha and targets of a configuration that is plain LoRA."""
    if config.get("peft_type") != "LORA":
        raise AdapterMismatch(f"peft_type = {config.get('peft_type')!r}; allowed: 'LORA'")
    if config.get("bias", "none") != "none":
        raise AdapterMismatch(f"bias = {config['bias']!r}; allowed: 'none'")
    init = config.get("init_lora_weights", True)
    if not any(init is plain or (isinstance(plain, str) and init == plain) for plain in PLAIN_INIT):
        raise AdapterMismatch(f"init_lora_weights = {init!r} changes the base weights")
    for name, value in config.items():
        if name not in NEUTRAL and value:  # DoRA, rsLoRA, rank_pattern, modules_to_save, … and whatever comes next
            raise AdapterMismatch(f"{name} = {str(value)[:80]!r}; allowed: plain LoRA, where it is off")
    _check_mapping(config.get("auto_mapping"))
    return _rank(config.get("r")), _alpha(config.get("lora_alpha")), _targets(config.get("target_modules"))


def _check_mapping(value: Any) -> None:
    """PEFT's AutoPeftModel imports the module named here: only the model library itself may be named."""
    if value is None:
        return
    library = value.get("parent_library") if isinstance(value, dict) else None
    if not isinstance(library, str) or not re.fullmatch(r"transformers(\.\w+)*", library):
        raise AdapterMismatch("auto_mapping names a module to import; allowed: null, or one of transformers")


def _rank(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_LORA_RANKS[-1]:
        raise AdapterMismatch(f"r = {value!r}; allowed: 1 to {MAX_LORA_RANKS[-1]}")
    return value


def _alpha(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 65536:
        raise AdapterMismatch(f"lora_alpha = {value!r}; allowed: above 0, at most 65536")
    return value


def _targets(value: Any) -> tuple[str, ...] | str:
    if isinstance(value, str) and 0 < len(value) <= 1000:
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) and item for item in value):
        return tuple(sorted(value))
    raise AdapterMismatch(f"target_modules = {str(value)[:80]!r}; allowed: a text or a non-empty list of texts")


def _check_pairs(tensors: Mapping[str, TensorInfo], rank: int) -> dict[str, tuple[int, int]]:
    """Return module -> (d_in, d_out); every module must have A [r, d_in] and B [d_out, r] and nothing else."""
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, info in tensors.items():
        match = WEIGHT_KEY.fullmatch(key)
        if match is None:
            raise AdapterCorrupt(f"unexpected tensor {key[:80]!r}; allowed: base_model.model.<module>.lora_A|B.weight")
        if info.dtype not in DTYPES:
            raise AdapterCorrupt(f"tensor {key[:80]!r} is {info.dtype}; allowed: {sorted(DTYPES)}")
        sides.setdefault(match["module"], {})[match["side"]] = info.shape
    if not sides:
        raise AdapterCorrupt("the adapter holds no tensor")
    return {module: _shape(module, pair, rank) for module, pair in sorted(sides.items())}


def _shape(module: str, pair: dict[str, tuple[int, ...]], rank: int) -> tuple[int, int]:
    a, b = pair.get("A", ()), pair.get("B", ())
    if len(a) != 2 or len(b) != 2:
        raise AdapterCorrupt(f"module {module!r} has A {a} and B {b}; both must be matrices")
    if a[0] != rank or b[1] != rank or not a[1] or not b[0]:
        raise AdapterMismatch(f"module {module!r} has A {a} and B {b}; r = {rank} in the configuration")
    return a[1], b[0]


def _absorb(digest: "hashlib._Hash", data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "big") + data)


def _absorb_file(digest: "hashlib._Hash", path: Path) -> None:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        digest.update(os.fstat(file.fileno()).st_size.to_bytes(8, "big"))
        while chunk := file.read(2**20):
            digest.update(chunk)
