"""All settings, as frozen values; the environment is read here and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from personalize.errors import InvalidParameter

Learning = Literal["on", "ask", "always"]


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Shape of a *new* adapter; a user keeps what his first version had.

    Args:
        r: rank.
        lora_alpha: the update is scaled by lora_alpha / r.
        target_modules: "all-linear" (every linear layer but the head) or module name endings.
    """

    r: int = 8
    lora_alpha: int = 16
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self):
        _range("r", self.r, 1, 512)
        _range("lora_alpha", self.lora_alpha, 1, 4096)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Limits of the serving engine.

    Args:
        max_num_seqs: sequences that decode together; one row each.
        max_loras: adapter slots beside the base's slot 0; None means 2 x max_num_seqs.
        max_lora_rank: highest rank the bank takes.
        max_model_len: context in tokens; None means what the model was made for (at most 4,096 are reserved).
        max_num_batched_tokens: prompt tokens in one prefill step.
        max_waiting: requests that may wait before new ones are refused.
        max_prefixes: conversations whose keys and values are kept under a version that was just published; 0: none.
        max_prefix_bytes: of all of them together.
        max_teacher_bytes: of keys and values that a base teacher keeps of the conversations it learns from; 0: none.
        num_threads: torch threads of the device thread; None leaves torch's own choice.
        lora_kernels: on a GPU, read adapters through the Triton kernels, if these agree with plain products there.
        cuda_graphs: on a GPU, record decode steps and replay them.
    """

    max_num_seqs: int = 16
    max_loras: int | None = None
    max_lora_rank: int = 64
    max_model_len: int | None = None
    max_num_batched_tokens: int = 2048
    max_waiting: int = 1024
    max_prefixes: int = 32
    max_prefix_bytes: int = 256 * 2**20
    max_teacher_bytes: int = 0
    num_threads: int | None = None
    lora_kernels: bool = True
    cuda_graphs: bool = True

    def __post_init__(self):
        _range("max_num_seqs", self.max_num_seqs, 1, 4096)
        _range("max_loras", self.max_loras or 1, 1, 65536)
        _range("max_lora_rank", self.max_lora_rank, 1, 512)
        _range("max_num_batched_tokens", self.max_num_batched_tokens, 16, 1_000_000)
        _range("max_prefixes", self.max_prefixes, 0, 65536)
        _range("max_prefix_bytes", self.max_prefix_bytes, 0, 2**50)
        _range("max_teacher_bytes", self.max_teacher_bytes, 0, 2**50)

    @property
    def num_slots(self) -> int:
        """Adapter slots, without the base's slot 0."""
        return self.max_loras if self.max_loras is not None else 2 * self.max_num_seqs


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What the operator decides.

    Args:
        learning: "on" learns from follow-ups (the operator has the users' agreement); "ask" learns only after a
            recorded consent; "always" takes a step on every follow-up, as the paper does.
        max_tokens: default cap of a reply.
        max_message_chars: longest accepted message.
        max_messages: most messages in one request.
        max_choices: highest accepted n.
        max_queued_updates: waiting follow-ups per user; beyond it the oldest is superseded.
        max_update_wait_s: seconds that a follow-up may wait to be learnt from while somebody learns; then a newer one
            of the same user supersedes it, or it is skipped (``skipped_budget``). None: it waits for ever.
        max_requests_per_user: replies that a server has waiting or running for one user before it refuses more; n
            choices are n replies. The embedded SDK does not count: its caller is one program.
        max_import_bytes: largest zip file, and largest file in it, that an import reads; a folder may be larger.
        review_every: versions of a user after which his newest one is judged by what it says, while nothing else is to
            be done; 0 never judges.
        population: who has no version yet is served with the population adapter, and begins to learn from it.
    """

    learning: Learning = "on"
    max_tokens: int = 512
    max_message_chars: int = 100_000
    max_messages: int = 2_000
    max_choices: int = 8
    max_queued_updates: int = 8
    max_update_wait_s: float | None = 60.0
    max_requests_per_user: int = 16
    max_import_bytes: int = 512 * 2**20
    review_every: int = 10
    population: bool = False

    def __post_init__(self):
        if self.learning not in ("on", "ask", "always"):
            raise InvalidParameter("learning", self.learning, "'on', 'ask' or 'always'")
        _range("max_tokens", self.max_tokens, 1, 1_000_000)
        _range("max_choices", self.max_choices, 1, 128)
        _range("max_requests_per_user", self.max_requests_per_user, 1, 1_000_000)
        _range("max_import_bytes", self.max_import_bytes, 1024, 2**31 - 1)
        _range("review_every", self.review_every, 0, 1_000_000)
        if self.max_update_wait_s is not None and not 1 <= self.max_update_wait_s <= 86_400:
            raise InvalidParameter("max_update_wait_s", self.max_update_wait_s, "seconds from 1 to 86400, or None")
        if not isinstance(self.population, bool):
            raise InvalidParameter("population", self.population, "True or False")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that ``Personalizer.open`` can be told."""

    model: str = "pocket"
    home: Path = Path("data")
    database_url: str | None = None
    device: Literal["cpu", "cuda", "auto"] = "auto"
    backend: Literal["local", "echo"] = "local"
    lora: LoraSettings = field(default_factory=LoraSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``personalize.learner.Recipe`` that differ from its defaults."""

    def __post_init__(self):
        object.__setattr__(self, "home", Path(self.home))  # a string is as good
        if self.device not in ("cpu", "cuda", "auto"):
            raise InvalidParameter("device", self.device, "'cpu', 'cuda' or 'auto'")
        if self.backend not in ("local", "echo"):
            raise InvalidParameter("backend", self.backend, "'local' or 'echo'")

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the index: SQLite inside ``home`` unless one was given."""
        return self.database_url or f"sqlite:///{self.home / 'index.sqlite'}"


def from_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the settings named by PERSONALIZE_* variables, by their lower-case names.

    Known: PERSONALIZE_MODEL, _HOME, _DATABASE_URL, _DEVICE, _LEARNING, _POPULATION, _API_KEY, _BASE_URL.
    """
    environ = os.environ if environ is None else environ
    known = ("model", "home", "database_url", "device", "learning", "population", "api_key", "base_url")
    return {name: environ[key] for name in known if (key := f"PERSONALIZE_{name.upper()}") in environ}


def _range(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidParameter(name, value, f"a whole number from {low} to {high}")


def keeps_freed_memory() -> bool:
    """Tell whether the C library was told to keep what is freed: training on a CPU is up to 1.6 times faster then."""
    return "MALLOC_TRIM_THRESHOLD_" in os.environ
