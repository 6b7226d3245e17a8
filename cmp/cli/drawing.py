"""The verb that draws: grid."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from cmp.cli import exporting
from cmp.cli.answers import read_answers
from cmp.cli.like import no_target, read_like, stacked_like
from cmp.cli.output import Json, in_trouble, print_json, printing_aside, say
from cmp.cli.telling import at_times, leave, leave_with, tile_line
from cmp.core.asking import DEMO_GUIDANCE, Asked, combine_stacks, to_spec
from cmp.core.errands import instance_address
from cmp.core.grids import USUAL_MODE, Cell, GridPlan, GridSpec, Prompt, Sampling, Tile
from cmp.core.labels import values_of, varying
from cmp.core.pace import duration_text
from cmp.core.present import counted, shortened, size_text
from cmp.core.prompts import LONGEST_FILE, parse_prompt_line, parse_prompts
from cmp.core.restored import Restored
from cmp.core.runs import Run
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Unreadable, sentences, why_not
from cmp.workbench import Workbench
from cmp.workbench.easel import existing_vaes
from cmp.workbench.targets import choose_columns, find_stacked

USUAL = Sampling()  # told in the help, and not as typer's defaults: what a picture given with --like says goes before it
NO_PACE = "how long it takes the first pictures will tell"  # nothing was drawn with this base here, and others say nothing of it
LONGEST_RUN = 60  # characters of a run in a picture's name
Previews = Callable[[list[Tile]], None]

app = typer.Typer(rich_markup_mode=None)


@app.command()
def grid(
    context: typer.Context,
    targets: Annotated[list[str] | None, typer.Argument(help="Runs, or checkpoints as RUN@STEP or paths; also of several runs.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw, with options such as --n; may be given several times.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompts: one per line, kohya's options too; or OneTrainer's.")] = None,
    negative: Annotated[list[str] | None, typer.Option(help="What to keep away from; several with ||.")] = None,
    search_replace: Annotated[list[str] | None, typer.Option(help="Prompt S/R: what to search for, then what replaces it.")] = None,
    checkpoints: Annotated[str, typer.Option(help="Steps: all, last 4, best, 500, 1000, 500:3000:500 …")] = "all",
    seeds: Annotated[str | None, typer.Option(help="Seeds: 0, 1-4, -1 for a random one … [default: 0]")] = None,
    strengths: Annotated[str | None, typer.Option(help="LoRA strengths: 1, 0.5-1 [3] … [default: 1]")] = None,
    steps: Annotated[str | None, typer.Option(help=f"Denoising steps: 12, 10-30 (+10) … [default: {USUAL.steps}]")] = None,
    guidance: Annotated[
        str | None,
        typer.Option(help=f"Guidance scale (CFG): 7.5, 1-9 [3] … [default: {USUAL.guidance:g}, with the demo {DEMO_GUIDANCE:g}]"),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT in pixels; several with commas. [default: base, what the base model was made for]")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="base, DDIM, Euler, Euler a, DPM++ 2M …, all; several with commas. [default: base, the one that it comes with]"),
    ] = None,
    clip_skip: Annotated[str | None, typer.Option(help="Layers of the text encoder, as A1111 counts: 1, 2.")] = None,
    vae: Annotated[str | None, typer.Option(help="Other VAEs, folders or files; base is the base model's.")] = None,
    stack: Annotated[
        list[str] | None, typer.Option(help="Wear another LoRA too: LORA or LORA:STRENGTHS; may be given several times.")
    ] = None,
    base_column: Annotated[bool, typer.Option("--base-column", help="Draw the base model alone as well.")] = False,
    like: Annotated[Path | None, typer.Option(help="Take what is not said here from the settings in this picture.")] = None,
    title: Annotated[str, typer.Option(help="What the grid is called.")] = "",
    exact: Annotated[bool, typer.Option("--exact", help="One picture at a time, to the bit as diffusers draws.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="In batches; this is what happens without --exact.")] = False,
    preview: Annotated[
        bool | None,
        typer.Option(
            "--preview/--no-preview",
            help="Draw every cell small and with few steps first, and with --sheet write these as soon as all are there. Without being "
            "asked only on a CPU with a large base and --sheet: nothing else shows a picture before the end.",
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    output: Annotated[Path | None, typer.Option(help="Copy the pictures into this folder.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write one labelled picture of the whole grid: .png, .webp or .jpg.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the grid as one page that opens anywhere, without a server.")] = None,
    animation: Annotated[Path | None, typer.Option(help="Write the grid over its steps: .gif or .webp.")] = None,
    zip: Annotated[Path | None, typer.Option("--zip", help="Write the pictures and a table of them as an archive.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of these names that are there.")] = False,
    ray: Annotated[str | None, typer.Option(help="Draw on a Ray cluster: HOST:PORT, local, or local:4 for four workers here.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Draw on another instance of this program: http://HOST:PORT; CMP_AT_TOKEN is its token.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many cells there are and draw nothing.")] = False,
    json: Json = False,
) -> None:
    """Draw the same prompts and seeds with every chosen checkpoint."""
    bench: Workbench = context.obj
    if ray and at:
        raise BadInput("both --ray and --at were given", "Give one of them.")
    if exact and fast:
        raise BadInput("both --exact and --fast were given", "Give one of them.")
    ray = instance_address(at) if at else ray
    found, lost = read_like(like)
    columns = choose_columns(bench, targets or _targets(found, like), checkpoints, only_ids=not targets)
    for line in (*columns.told, *(f"passed over: {c.id}: {c.flaw}" for c in columns.flawed)):
        in_trouble(line)
    worn = [find_stacked(bench, text) for text in stack or ()]
    if not stack and found:
        worn, more = stacked_like(bench, found)
        lost = [*lost, *more]
    asked = Asked(
        prompts=_prompts(prompt, prompts), negatives=tuple(negative or ()), search_replace=tuple(search_replace or ()), seeds=seeds,
        strengths=strengths, steps=steps, guidance=guidance, size=size, scheduler=scheduler, clip_skip=clip_skip, vae=existing_vaes(vae),
    )  # fmt: skip
    runs, given = [*columns.runs, *(run for run, _, _ in worn)], read_answers(alpha, base)
    mode = "exact" if exact else "fast" if fast else USUAL_MODE
    if preview is None:
        preview = sheet is not None and ray is None and bench.slow_here(runs[0], given)
    spec = to_spec(
        asked, (*((None,) if base_column else ()), *columns.checkpoints), combine_stacks([(one, values) for _, one, values in worn]),
        draw=lambda: secrets.randbelow(2**32), like=found, usual=bench.usual_sampling(runs), title=title, preview=preview, mode=mode,
    )  # fmt: skip
    for told in lost:
        in_trouble(f"not restored from {like}: {told}")
    more: dict[str, object] = {"passed_over": [{"checkpoint": c.id, "why": c.flaw} for c in columns.flawed]}
    more |= {"not_restored": lost} if like else {}
    if dry_run:
        plan = bench.plan_grid(spec, runs, given)
        _tell_plan(spec, plan, more, json)
        leave_with([fault for _, fault in plan.faults], plan.cells)
        return
    wanted = exporting.Wanted({"sheet": sheet, "html": html, "animation": animation, "zip": zip}, force)
    wanted.check()
    _make_room(output, *wanted.folders())
    with printing_aside():
        tiles = _draw(bench, spec, runs, given, ray, lambda small: wanted.show_previews(bench, spec, small))
    for run in runs:
        bench.remember_prompts(run, dict.fromkeys(prompt.text for prompt in spec.prompts))
    if output:
        _copy(tiles, output)
    written = wanted.write(bench, spec, tiles)
    if json:
        print_json({"tiles": [tile.as_json() for tile in tiles], **written} | more)
    leave(tiles)


# -- what is drawn ---------------------------------------------------------------------------------------------------------


def _targets(like: Restored | None, picture: Path | None) -> list[str]:
    """What is drawn with where no target is given."""
    if like and like.checkpoint:
        return [like.checkpoint]
    raise no_target(like, picture)


def _prompts(given: list[str] | None, file: Path | None) -> tuple[Prompt, ...]:
    """Those of the command line, then those of the file, all with their options; none if neither was given."""
    found = [parse_prompt_line(text) for text in given or () if text.strip()]
    if file:
        try:
            with file.open(encoding="utf-8") as opened:
                text = opened.read(LONGEST_FILE + 1)
        except OSError as fault:
            raise Unreadable(
                f"cannot read the prompts in {file}: {why_not(fault)}", "Give a UTF-8 text file with one prompt per line."
            ) from fault
        except UnicodeDecodeError as fault:
            raise Unreadable(f"{file} is no text in UTF-8", "Save the prompts as UTF-8.") from fault
        found += parse_prompts(text)
        if not found:
            raise BadInput(f"{file} holds no prompt", "Write one per line; lines that begin with # are comments.")
    return tuple(dict.fromkeys(found))


# -- drawing ---------------------------------------------------------------------------------------------------------------


def _tell_plan(spec: GridSpec, plan: GridPlan, more: Mapping[str, object], json: bool) -> None:
    """What would be drawn: how many cells, which of them are new, what stands against others, and the values of each axis."""
    cells = spec.cells()
    axes = {axis.name: list(values_of(axis, cells)) for axis in varying(cells)}
    for fault in dict.fromkeys(fault for _, fault in plan.faults):
        in_trouble(f"cannot be drawn: {sentences(fault.error, fault.hint)}")
    if json:
        print_json({"tiles": [], **plan.as_json(), "axes": axes, "sheet": None, "html": None, **more})
        return
    told = [f"{plan.new} new", f"{plan.reused} drawn before", *([f"{plan.same} the same as a new one"] if plan.same else [])]
    told += [f"{len(plan.faults)} cannot be drawn"] if plan.faults else []
    told += [NO_PACE if plan.seconds is None else duration_text(plan.seconds, about=True)] if plan.new else []
    told += [size_text(plan.bytes)] if plan.new and plan.bytes is not None else []
    say(f"{counted(plan.cells, 'cell')}: {', '.join(told)}")
    for name, values in axes.items():
        shown = f"{', '.join(shortened(value, 60) for value in values[:12])}{' …' if len(values) > 12 else ''}"
        say(f"  {f'{name}, {len(values)}:':<22}{shown}")


def _make_room(*folders: Path | None) -> None:
    """Makes the folders before hours are spent on drawing."""
    for folder in folders:
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise BadInput(f"nothing can be written to {folder}: {fault.strerror}", "Give a folder that can be written to.") from fault


def _draw(bench: Workbench, spec: GridSpec, runs: list[Run], given: Answers, ray: str | None, show: Previews | None = None) -> list[Tile]:
    """The last tile of every cell: a preview is replaced by what comes after it. Once all are there small, `show` is given them."""
    tiles: dict[Cell, Tile] = {}
    for item in at_times(bench.follow_grid(spec, runs, given, ray)):
        assert isinstance(item, Tile)
        tiles[item.cell] = item
        count = sum(not tile.preview for tile in tiles.values())
        in_trouble(f"{'preview' if item.preview else f'{count}/{spec.size}'} {tile_line(item)}")
        if show and item.preview and len(tiles) == spec.size:
            show(list(tiles.values()))
    return list(tiles.values())


def _copy(tiles: list[Tile], folder: Path) -> None:
    drawn = [tile for tile in tiles if tile.path]
    for number, tile in enumerate(tiles):
        if tile.path:
            shutil.copyfile(tile.path, folder / f"{number:04d}-{_called(tile.cell, [one.cell for one in drawn])}.png")
    in_trouble(f"copied {counted(len(drawn), 'picture')} to {folder}")


def _called(cell: Cell, cells: list[Cell]) -> str:
    """What a picture's file is called: its step and seed, and its run and strength where the others have several of these."""
    of = cell.checkpoint
    runs = {one.checkpoint.run_id for one in cells if one.checkpoint}
    strengths = {one.strength for one in cells if one.checkpoint}
    parts = [re.sub(r"[^\w.-]+", "_", of.run_id)[-LONGEST_RUN:]] if of and len(runs) > 1 else []
    parts += [of.key.replace("/", "_") if of else "base", f"seed{cell.seed}"]
    return "-".join([*parts, *([f"strength{cell.strength:g}"] if of and len(strengths) > 1 else [])])
