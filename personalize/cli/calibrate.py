"""``personalize calibrate``: can this model be personalized, and with which settings?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from personalize.cli.options import Device, Json, settings
from personalize.cli.printing import console, print_json
from personalize.errors import InvalidParameter

if TYPE_CHECKING:
    from personalize.evaluation.calibration.calibration import Calibration
    from personalize.evaluation.calibration.thresholds import Thresholds

QUARTILES = ("lower quarter", "middle", "upper quarter")
STYLES = {"passed": "green", "failed": "bold red", "not measured": "dim", "reported": "cyan"}


def calibrate(
    model: Annotated[str, typer.Argument(help="pocket, a path or a hub id", metavar="MODEL")],
    out: Annotated[Path | None, typer.Option("--out", help="write the proposed recipe to this JSON file")] = None,
    samples: Annotated[int, typer.Option(min=1, help="replies per wish and sort")] = 12,
    max_tokens: Annotated[int, typer.Option(min=8, help="cap of a reply")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="another seed, other replies")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="torch threads; else torch's own choice")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure MODEL before anybody is personalized on it; exit code 1 when it cannot be personalized."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InvalidParameter("out", str(out), "a file in a folder that exists")
    chosen = settings(model=model, device=device)
    from personalize.evaluation.calibration import command, preflight  # torch is only needed here

    extent = preflight.Extent(samples=samples, max_tokens=max_tokens, seed=seed)
    screen = Console(stderr=True)
    with screen.status(Text(f"calibrating {model}")) as status:
        found = command.calibrate(chosen, extent, num_threads=threads, note=lambda text: status.update(Text(text)))
    if as_json:
        print_json(found.to_json())
    else:
        show(found, console())
    if found.recipe is None:
        raise typer.Exit(1)
    if out is not None:
        _write(out, json.dumps(dict(found.recipe), indent=2) + "\n")


def show(found: "Calibration", screen: Console) -> None:
    """Print the gates, what they come from, and the verdict."""
    screen.print(_gates(found))
    if found.findings.wishes:
        screen.print(_wishes(found))
    if found.findings.signals:
        screen.print(_signals(found))
    if any(one.reaches for one in found.findings.signals):
        screen.print(_reaches(found))
    if found.findings.together:
        screen.print(_together(found))
    if found.findings.trials:
        screen.print(_trials(found))
    _show_verdict(found, screen)


def _gates(found: "Calibration") -> Table:
    title = Text(f"{found.model}, {found.base_digest[:16]}", style="table.title")
    table = Table("gate", "what", "value", "needs", "result", title=title)
    for gate in found.gates:
        result = gate.verdict if gate.required or gate.verdict != "failed" else "below what is usual"
        style = STYLES[gate.verdict] if gate.required or gate.verdict != "failed" else "yellow"
        table.add_row(gate.name, gate.what, _number(gate.value), gate.needs, Text(result, style=style))
    return table


def _wishes(found: "Calibration") -> Table:
    from personalize.evaluation.calibration.gates import follows

    table = Table(
        "wish", "unasked", "told in the block", "asked outright", "told wins", "can be learned", title="wishes"
    )
    for rates in found.findings.wishes:
        numbers = (rates.plain, rates.told, rates.asked, rates.win)
        table.add_row(rates.name, *map(_number, numbers), "yes" if follows(rates) else "no")
    return table


def _signals(found: "Calibration") -> Table:
    from personalize.evaluation.calibration.findings import summary

    table = Table("follow-up", "mean |A|", *QUARTILES, title="the gate's signal, nats")
    for kind, one in summary(found.findings).items():
        table.add_row(kind, *map(_number, (one.size, one.signal.low, one.signal.middle, one.signal.high)))
    return table


def _reaches(found: "Calibration") -> Table:
    from personalize.evaluation.calibration.findings import summary

    table = Table("follow-up", *QUARTILES, title="the reach beyond the own reply, nats")
    for kind, one in summary(found.findings).items():
        if one.reach is not None:
            table.add_row(kind, *map(_number, (one.reach.low, one.reach.middle, one.reach.high)))
    return table


def _together(found: "Calibration") -> Table:
    table = Table("follow-ups in the block", "their wishes hold", "each told alone", title="blocks")
    for one in found.findings.together:
        table.add_row(str(one.size), _number(one.rate), _number(one.alone))
    return table


def _trials(found: "Calibration") -> Table:
    title = f"updates on trial; median gain of a layer {_number(found.findings.layer_gain)}"
    table = Table("lr", "loss before", "loss after", "gradient norm", "KL per reply", "outcomes", title=title)
    for trial in found.findings.trials:
        numbers = (trial.lr, trial.loss_first, trial.loss_last, trial.grad_norm, trial.reply_kl)
        table.add_row(*map(_number, numbers), ", ".join(trial.outcomes))
    return table


def _show_verdict(found: "Calibration", screen: Console) -> None:
    if found.recipe is None:
        screen.print(Text("This model cannot be personalized this way.", style="bold red"))
        for reason in found.reasons:
            screen.print(Text(f"  {reason}"))
        return
    screen.print(Text("This model can be personalized. Proposed recipe:", style="bold green"))
    screen.print_json(json.dumps(dict(found.recipe)))
    if found.thresholds is not None:
        screen.print(Text(_entry(found.thresholds)))
    from personalize.evaluation.calibration.gates import follows

    missing = [rates.name for rates in found.findings.wishes if not follows(rates)]
    if missing:
        screen.print(Text(f"Not to be expected of it: {', '.join(missing)}."))


def _entry(thresholds: "Thresholds") -> str:
    told = f"They let in {thresholds.caught:.0%} of the wishes and {thresholds.let_in:.0%} of the idle follow-ups."
    return f"{told} No reach_nats: {thresholds.why_no_reach}." if thresholds.why_no_reach else told


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidParameter("out", str(file), f"a file that can be written ({error.strerror})") from error
