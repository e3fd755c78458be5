"""How far an adapter has moved the model on texts that no user has ever seen.

The adapter is taken from the user's own export, as anybody could; a second copy of the base model reads it.
"""

import random
import tempfile
import zipfile
from pathlib import Path

import torch

from personalize.evaluation.users import fresh_prompts
from personalize.functional import reverse_kl
from personalize.learner.batch import Row, collate
from personalize.learner.passes import reply_log_probs
from personalize.model.base import BaseModel
from personalize.model.folder import read_adapter
from personalize.model.rows import AdapterRows
from personalize.service import Personalizer
from personalize.types import Message
from personalize.world.preferences import DEFAULT
from personalize.world.replies import compose

NUM_TEXTS = 16
MAX_REPLY_TOKENS = 48
_SEED = 1


class Drift:
    """Measures KL(user's model ‖ base) per token of fixed replies to fixed prompts.

    Args:
        base: a copy of the base model that nobody else is using.
    """

    def __init__(self, base: BaseModel):
        self._base = base
        self._batch = collate(_texts(base), base.device)
        self._told_NV = reply_log_probs(base, self._batch, None)

    def kl(self, folder: Path) -> float:
        """Return the mean over tokens, in nats, for the PEFT adapter in ``folder``."""
        adapter = read_adapter(folder, self._base).copy(device=self._base.device)
        rows = AdapterRows.of([adapter], [0] * NUM_TEXTS)
        with torch.no_grad():
            return float(reverse_kl(reply_log_probs(self._base, self._batch, rows), self._told_NV).mean())


async def exported_head(app: Personalizer, user: str, folder: Path) -> Path | None:
    """Unpack the user's current version into ``folder`` and return where it lies; None while the base serves."""
    head = (await app.user(user)).head
    if head is None:
        return None
    with tempfile.TemporaryDirectory() as kept:
        path = await app.export(user, Path(kept) / "export.zip")
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.startswith("versions/") and f"@{head}-" in name]
            archive.extractall(folder, names)
    return (folder / names[0]).parent


def _texts(base: BaseModel) -> list[Row]:
    assert base.renderer is not None, "a chat model has a renderer"
    rng = random.Random(_SEED)
    rows = []
    for topic, question in fresh_prompts(NUM_TEXTS, _SEED):
        reply = compose(topic, DEFAULT, rng)
        ids = tuple(base.renderer.tokenizer.encode(reply, add_special_tokens=False)[:MAX_REPLY_TOKENS])
        rows.append(Row(base.renderer.render((Message("user", question),)), ids, (1,) * len(ids)))
    return rows
