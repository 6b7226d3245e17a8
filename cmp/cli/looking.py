"""The verbs that look into one thing: show, doctor."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json, say
from cmp.core.describing import CAN_BE_MADE, checkpoint_facts, run_facts
from cmp.disk.ready import Answers
from cmp.workbench import Workbench

app = typer.Typer(rich_markup_mode=None)


@app.command()
def show(
    context: typer.Context,
    target: str,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    json: Json = False,
) -> None:
    """One run or checkpoint: settings, tensors by kind, scale and where it was found, what it can become."""
    bench: Workbench = context.obj
    given = read_answers(alpha, base)
    told = bench.show(target, given)
    if given != Answers():
        _remember(bench, target, given, told)
    if json:
        print_json(told)
        return
    say(str(told["id"]))
    for fact in checkpoint_facts(told) if "layout" in told else run_facts(told):
        for number, line in enumerate(fact.lines):
            say(f"  {fact.label if not number else '':<18}{line}")
    if told.get("question"):
        say(f"  {'':<18}answer with: python -m cmp show {shlex.quote(target)} --alpha X")


def _remember(bench: Workbench, target: str, given: Answers, told: Mapping[str, Any]) -> None:
    """Keeps an answer with which the checkpoint can become something; a wrong one must not outlive this."""
    run, checkpoint = bench.find(target)
    if checkpoint and given.alpha is not None and bench.answers(run).alpha is None and not bench.show(target).get("question"):
        in_trouble(f"alpha {given.alpha:g} is not remembered: what is known of {run.id} tells its alpha")
        given = replace(given, alpha=None)
        if given == Answers():
            return
    if checkpoint is None or CAN_BE_MADE in told.get("forms", {}).values():
        bench.answer(run, given)
        said = ", ".join(
            [*([f"alpha {given.alpha:g}"] if given.alpha is not None else []), *([f"base {given.base}"] if given.base else [])]
        )
        in_trouble(f"remembered for {run.id}: {said}")


def _print_facts(told: object, indent: int = 0) -> None:
    for name, value in told.items() if isinstance(told, dict) else enumerate(told if isinstance(told, list) else []):
        label = " " * indent + (f"{name}:" if isinstance(told, dict) else "-")
        if isinstance(value, (dict, list)) and value:
            say(label)
            _print_facts(value, indent + 2)
        else:
            say(f"{label} {'–' if value in (None, [], {}) else value}")


@app.command()
def doctor(context: typer.Context, path: Annotated[Path | None, typer.Argument()] = None, json: Json = False) -> None:
    """Why a folder is not listed; what this machine can do: device, memory, disk, versions, base models found; and what does not fit."""
    bench: Workbench = context.obj
    told = bench.doctor(path)
    if json:
        print_json(told)
        return
    _print_facts({name: value for name, value in told.items() if name != "misfits"})
    misfits: Any = told["misfits"]
    say("misfits: none" if not misfits else "misfits:")
    for misfit in misfits:
        say(f"  ✗ {misfit['what']}")
        say(f"    {misfit['why']}")
        say(f"    type: {misfit['type']}")
