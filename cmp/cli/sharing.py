"""The verb that hands a run over to others: share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json, print_table, say
from cmp.core.present import counted, size_text
from cmp.core.progress import Progress
from cmp.core.publishing import IMAGES, PICTURE, SharePlan, Wanted
from cmp.errors import BadInput
from cmp.workbench import Workbench

app = typer.Typer(rich_markup_mode=None)


@app.command()
def share(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A run; with --model also RUN@STEP, otherwise the best by its verdict.")],
    output: Annotated[Path | None, typer.Option(help="A folder that is not there yet: written here, not uploaded.")] = None,
    space: Annotated[str | None, typer.Option(help="OWNER/NAME: the page as a static Space of the Hugging Face Hub.")] = None,
    model: Annotated[str | None, typer.Option(help="OWNER/NAME: the chosen LoRA with a model card.")] = None,
    license: Annotated[str | None, typer.Option(help="With --model: its license, by the Hub's identifier.")] = None,
    png: Annotated[bool, typer.Option("--png", help="Pictures as they were drawn, as PNG; else WebP of 512 pixels.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A repository that is new is for everyone to see; else private.")] = False,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that share has written, or files of a repository.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List every picture too, each as a file, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it what would be written is told, pictures in one line.")] = False,
    json: Json = False,
) -> None:
    """Write or upload a page of a run, with pictures and without weights; or its best LoRA with a model card."""
    bench: Workbench = context.obj
    if dry_run and yes:
        raise BadInput("--dry-run and --yes were both given", "Use one of them.")
    wanted = Wanted(output.expanduser().absolute() if output else None, space, model, png, license, force, public)
    with bench.shared(target, wanted, read_answers(alpha, base)) as planning:
        plan = _planned(planning)
        if not json:
            _tell(plan, yes, all_files=dry_run)
        at = _carry_out(bench, plan) if yes else None
        if json:
            print_json(plan.as_json(at))
        elif at:
            say(f"{'wrote' if plan.wanted.repository is None else 'uploaded to'} {at}")


def _planned(planning: object) -> SharePlan:
    before = ""
    while True:
        try:
            step: Progress = next(planning)  # type: ignore[call-overload]
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]
        if step.what != before:
            in_trouble(step.what)
        before = step.what


def _carry_out(bench: Workbench, plan: SharePlan) -> str:
    at, before = "", ""
    for item in bench.follow_share(plan):
        if isinstance(item, str):
            at = item
        elif isinstance(item, Progress) and item.what != before:
            before = item.what
            in_trouble(before)
    return at


def _tell(plan: SharePlan, doing: bool, *, all_files: bool) -> None:
    """Every file, but for the pictures, of which there may be hundreds: they are told together unless `all_files` are to be listed."""
    pictures = [] if all_files else [one for one in plan.files if one.what.startswith(PICTURE)]
    pictures = pictures if len(pictures) > 1 else []
    rows = [[size_text(one.bytes), one.path, one.what] for one in plan.files if one not in pictures]
    if pictures:
        rows.append([size_text(sum(one.bytes for one in pictures)), f"{IMAGES}/…", counted(len(pictures), "picture")])
    print_table(["size", "file", "what it is"], rows, right=frozenset({0}))
    say(f"{counted(len(plan.files), 'file')}, {size_text(plan.bytes)}, for {plan.goes_to}")
    for note in plan.notes:
        in_trouble(f"note: {note}")
    if not doing:
        say(f"Nothing was written; --yes does it.{' --dry-run and --json name every picture.' if pictures else ''}")
