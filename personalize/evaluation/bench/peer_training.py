"""One self-distillation step in stock PEFT, written plainly: the peer of an update.

It is what a trainer does at its best: the teacher is the model with its adapter off, told the follow-up, without a
graph; the student's graph spans prompt and reply; logits at reply positions only; a clipped step of Adam. TRL's own
trainers of this kind (SDPO and SDFT under ``trl.experimental``) run this very step inside ``transformers.Trainer``,
whose data loader, accelerator and logging come on top, for every user anew, and generate their own replies first:
against them a ratio would only be kinder to us.
"""

from typing import Any

import torch
from torch import Tensor

from personalize.learner import Recipe
from personalize.learner.lesson import told_row
from personalize.model.base import BaseModel
from personalize.types import Experience


class PeftTrainer:
    """Trains the adapters ``u0``, ``u1``, … of one PEFT model, each with its own Adam."""

    def __init__(self, model: Any, num_users: int, recipe: Recipe):
        self.model, self.recipe = model, recipe
        self._own: list[list[Tensor]] = []
        self._optimizers: list[torch.optim.Adam] = []
        for user in range(num_users):
            mine = [p for name, p in model.named_parameters() if f".u{user}.weight" in name]
            self._own.append(mine)
            self._optimizers.append(torch.optim.Adam(mine, lr=recipe.lr, foreach=True))

    def step(self, user: int, base: BaseModel, turn: Experience) -> float:
        """Take one step for ``user``; return the loss, the mean KL(teacher ‖ student) over the reply in nats."""
        self.model.set_adapter(f"u{user}")
        told = told_row(base, turn, [turn])
        with torch.no_grad(), self.model.disable_adapter():
            teacher_NV = self._log_probs(told.prompt_ids, turn)
        student_NV = self._log_probs(turn.prompt_ids, turn)
        loss = (teacher_NV.exp() * (teacher_NV - student_NV)).sum(-1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._own[user], self.recipe.max_grad_norm)
        self._optimizers[user].step()
        self._optimizers[user].zero_grad(set_to_none=True)
        return float(loss.detach())

    def _log_probs(self, prompt_ids: tuple[int, ...], turn: Experience) -> Tensor:
        device = next(self.model.parameters()).device
        ids = torch.tensor([[*prompt_ids, *turn.completion_ids]], device=device)
        reply = len(turn.completion_ids)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=reply + 1).logits[0, :-1]
        return torch.log_softmax(logits.float(), dim=-1)
