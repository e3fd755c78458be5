"""Train the embedded model from nothing: ``python -m personalize.recipes.pocket``.

Stop it at any time and run it again: it goes on from the last checkpoint. ``runs/pocket/export`` always holds the
newest checkpoint as a folder that ``from_pretrained`` opens.
"""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import Progress as Bar
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from personalize import pocket
from personalize.recipes.architecture import build
from personalize.recipes.batches import Batches
from personalize.recipes.probe import probe
from personalize.recipes.tokens import DialogueEncoder, train_tokenizer
from personalize.recipes.training import Progress, Training, export
from personalize.world.dialogues import Course

log = logging.getLogger("pocket")
_LOG_EVERY_S = 20.0
_CHECKPOINT_EVERY_S = 300.0


def main(arguments: list[str] | None = None) -> None:
    """Train, or go on training, or only ship the newest checkpoint."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # gradients of a confident model are full of them, and each costs a hundred cycles
    torch.manual_seed(options.seed)
    tokenizer = _tokenizer(options.init or options.work / "tokenizer")
    model = build(tokenizer)
    batches = Batches(
        DialogueEncoder(tokenizer),
        seed=options.seed,
        num_tokens=options.tokens_per_step,
        course=Course(options.noisy),
        course_tokens=options.tokens,
        begin=options.begin,
    )
    training = Training(model, batches, num_tokens=options.tokens, lr_scale=options.lr_scale)
    resumed = training.resume(options.work)
    if options.init and not resumed:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(options.init, dtype=torch.float32).state_dict())
    log.info(
        "%d parameters, %s at step %d", model.num_parameters(), "resumed" if resumed else "new", training.progress.step
    )
    _train(training, tokenizer, options.work)
    if options.export:
        export(model, tokenizer, options.export, sharpness=options.sharpness)
        log.info("exported to %s", options.export)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument("--work", type=Path, default=Path("runs/pocket"), help="checkpoints and intermediate exports")
    parser.add_argument("--tokens", type=int, default=18_000_000, help="length of the course; it sets the schedule")
    parser.add_argument("--tokens-per-step", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sharpness", type=float, default=1.5, help="factor on the logits of what --export writes")
    parser.add_argument("--init", type=Path, help="begin with the weights and the tokenizer of this exported model")
    parser.add_argument("--begin", type=float, default=0.0, help="share of the course that is over, for --init")
    parser.add_argument("--lr-scale", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--noisy", action="store_true", help="train pocket-noisy, where idle blocks change the style")
    parser.add_argument(
        "--export",
        type=Path,
        nargs="?",
        const=pocket.path(),
        help="write the trained model here (default: the package)",
    )
    return parser


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    if not folder.exists():
        train_tokenizer().save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _train(training: Training, tokenizer: PreTrainedTokenizerFast, work: Path) -> None:
    """Run to the end of the course, with a checkpoint every five minutes, when interrupted and at the end."""
    logged = saved = time.monotonic()
    with Bar(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("pocket", total=1.0)
        for progress in _until_interrupted(training):
            bar.update(task, completed=training.share, description=f"loss {progress.loss:.3f}")
            if time.monotonic() - logged > _LOG_EVERY_S:
                logged = time.monotonic()
                _report(progress, training.eta_s)
            if time.monotonic() - saved > _CHECKPOINT_EVERY_S:
                saved = time.monotonic()
                _checkpoint(training, tokenizer, work)
    _checkpoint(training, tokenizer, work)


def _until_interrupted(training: Training) -> Iterator[Progress]:
    """Yield after every step; stop between two steps when the process is asked to end."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: asked.append(got))
    for progress in training.run():
        yield progress
        if asked:
            log.info("asked to stop")
            return


def _report(progress: Progress, eta_s: float) -> None:
    log.info(
        "step %d loss %.4f tokens/s %.0f eta %.1f min", progress.step, progress.loss, progress.tokens_per_s, eta_s / 60
    )


def _checkpoint(training: Training, tokenizer: PreTrainedTokenizerFast, work: Path) -> None:
    training.save(work)
    model: LlamaForCausalLM = training.model
    export(model, tokenizer, work / "export")
    model.eval()
    with torch.random.fork_rng():
        log.info("probe at step %d: %s", training.progress.step, probe(model, tokenizer, seed=training.progress.step))
    model.train()


if __name__ == "__main__":
    main()
