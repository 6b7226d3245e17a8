"""The verb that draws: grid."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json, printing_aside, say
from cmp.core.axes import choose_checkpoints, parse_axis, parse_whole_axis
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ready import Answers
from cmp.errors import BadInput, NotFound, Unreadable, sentences
from cmp.workbench import Workbench

app = typer.Typer(rich_markup_mode=None)


@app.command()
def grid(
    context: typer.Context,
    targets: Annotated[list[str], typer.Argument(help="A run, or checkpoints as RUN@STEP or paths.")],
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; may be given several times.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file with one prompt per line.")] = None,
    negative: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    checkpoints: Annotated[str, typer.Option(help="Steps: all, last 4, 500, 1000, 500:3000:500 …")] = "all",
    seeds: Annotated[str, typer.Option(help="Seeds: 0, 1-4 …")] = "0",
    strengths: Annotated[str, typer.Option(help="LoRA strengths: 1, 0.5-1 [3] …")] = "1",
    steps: Annotated[str, typer.Option(help="Denoising steps.")] = "12",
    guidance: Annotated[str, typer.Option(help="Guidance scale (CFG).")] = "7.5",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels; several with commas.")] = None,
    scheduler: Annotated[str, typer.Option(help="base, DDIM, Euler, Euler a, DPM++ 2M …; several with commas.")] = "base",
    base_column: Annotated[bool, typer.Option("--base-column", help="Draw the base model alone as well.")] = False,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    output: Annotated[Path | None, typer.Option(help="Copy the pictures into this folder.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write one labelled picture of the whole grid.")] = None,
    ray: Annotated[str | None, typer.Option(help="Draw on a Ray cluster: HOST:PORT, local, or local:4 for four workers here.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many cells there are and draw nothing.")] = False,
    json: Json = False,
) -> None:
    """Draw the same prompts and seeds with every chosen checkpoint."""
    bench: Workbench = context.obj
    runs, chosen = _choose(bench, targets, checkpoints)
    spec = GridSpec(
        checkpoints=(*((None,) if base_column else ()), *chosen),
        prompts=tuple(Prompt(text, negative) for text in _prompts(prompt, prompts)),
        seeds=parse_whole_axis(seeds, "seeds"),
        strengths=parse_axis(strengths, "strengths"),
        samplings=_samplings(steps, guidance, size, scheduler),
    )
    if dry_run:
        if json:
            print_json({"tiles": [], "cells": spec.size, "sheet": None, "html": None})
        else:
            say(f"{spec.size} cells: {len(spec.checkpoints)} checkpoints × {len(spec.prompts)} prompts × {len(spec.seeds)} seeds")
        return
    tiles = _draw(bench, spec, runs, read_answers(alpha, base), ray)
    if output:
        _copy(tiles, output)
    if sheet:
        from cmp.pictures.sheets import write_sheet

        write_sheet(tiles, sheet)
        in_trouble(f"wrote {sheet}")
    if json:
        print_json({"tiles": [tile.as_json() for tile in tiles], "sheet": str(sheet.absolute()) if sheet else None, "html": None})
    _leave(tiles)


def _choose(bench: Workbench, targets: list[str], axis: str) -> tuple[list[Run], tuple[Checkpoint, ...]]:
    runs: list[Run] = []
    chosen: list[Checkpoint] = []
    for target in targets:
        run, checkpoint = bench.find(target)
        runs.append(run)
        chosen.extend((checkpoint,) if checkpoint else choose_checkpoints(axis, run.checkpoints))
    if not chosen:
        raise NotFound(f"no checkpoint of {', '.join(targets)} can be drawn", "`python -m cmp list` shows what stands against each.")
    return runs, tuple(dict.fromkeys(chosen))


def _prompts(given: list[str] | None, file: Path | None) -> list[str]:
    texts = [text for text in given or () if text.strip()]
    if file:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as fault:
            raise Unreadable(f"cannot read the prompts in {file}: {fault}", "Give a UTF-8 text file with one prompt per line.") from fault
        texts += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not texts:
        raise BadInput("no prompt was given", 'Give one with --prompt "a red casual shoe", or a file with --prompts.')
    return texts


def _samplings(steps: str, guidance: str, size: str | None, scheduler: str) -> tuple[Sampling, ...]:
    sizes = [_size(part) for part in size.split(",")] if size else [(None, None)]
    return tuple(
        Sampling(count, cfg, width, height, name.strip())
        for name in scheduler.split(",")
        for width, height in sizes
        for cfg in parse_axis(guidance, "guidance")
        for count in parse_whole_axis(steps, "steps")
    )


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.strip().lower().partition("x")
    if not (x and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise BadInput(f"--size is {text!r}", "Write WIDTHxHEIGHT, for example 512x512.")
    return int(width), int(height)


def _draw(bench: Workbench, spec: GridSpec, runs: list[Run], given: Answers, ray: str | None) -> list[Tile]:
    tiles: list[Tile] = []
    with printing_aside():
        for tile in bench.follow_grid(spec, runs, given, ray):
            if not isinstance(tile, Tile):
                continue
            tiles.append(tile)
            name = tile.cell.checkpoint.id if tile.cell.checkpoint else "base model"
            became = tile.fault.error if tile.fault else ("reused" if tile.reused else f"{tile.seconds:.1f} s")
            in_trouble(f"{len(tiles)}/{spec.size} {name}, seed {tile.cell.seed}, {tile.cell.prompt.text[:60]!r}: {became}")
    return tiles


def _copy(tiles: list[Tile], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, tile in enumerate(tiles):
        if tile.path:
            step = tile.cell.checkpoint.key if tile.cell.checkpoint else "base"
            shutil.copyfile(tile.path, folder / f"{number:04d}-{step}-seed{tile.cell.seed}.png")
    in_trouble(f"copied {sum(tile.path is not None for tile in tiles)} pictures to {folder}")


def _leave(tiles: list[Tile]) -> None:
    faults = [tile.fault for tile in tiles if tile.fault]
    for fault in dict.fromkeys(faults):
        in_trouble(f"not drawn: {sentences(fault.error, fault.hint)}")
    if faults:
        raise typer.Exit(faults[0].code if len(faults) == len(tiles) and len(set(faults)) == 1 else 1)
