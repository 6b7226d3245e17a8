"""The verbs that pick a checkpoint: best, vote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from cmp.cli.output import Json, in_trouble, print_json, print_table, say
from cmp.core.picking import Gate, Score, Verdict
from cmp.core.present import counted
from cmp.core.votes import Tally, chances
from cmp.errors import BadInput, Refused
from cmp.workbench import Workbench
from cmp.workbench.targets import run_at
from cmp.workbench.telling import votes_json

app = typer.Typer(rich_markup_mode=None)


@app.command()
def best(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run, by its id or path.")],
    by: Annotated[
        str | None,
        typer.Option(help="measured, held-out, training, votes, a measured metric, or any logged tag; the first of these that is known."),
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help='"A vs B": exit with 0 if A is as good as B at 95 %, 1 if it is worse, 5 if that cannot be said.')
    ] = None,
    margin: Annotated[float, typer.Option(help="With --gate: as good is what is worse by no more than this.")] = 0.0,
    higher: Annotated[bool, typer.Option("--higher", help="More of the tag is better.")] = False,
    lower: Annotated[bool, typer.Option("--lower", help="Less of the tag is better.")] = False,
    json: Json = False,
) -> None:
    """Which checkpoint is the best, which cannot be told from it, and by what."""
    bench: Workbench = context.obj
    found = run_at(bench, run)
    if higher and lower:
        raise BadInput("--higher and --lower were both given", "Use one of them.")
    direction = True if higher else False if lower else None
    verdict = bench.judge(found, by, direction)
    judged = bench.gate(found, gate, by, direction, margin) if gate is not None else None
    if json:
        print_json(verdict.as_json(found) | ({"gate": judged.as_json()} if judged else {}))
    elif judged:
        say(judged.told)
    else:
        _tell(verdict)
    _warn(verdict.warnings)
    if by is None and (both := bench.agreement(found)).agree is False:
        in_trouble(f"note: {both.told}")
    if judged:
        raise typer.Exit(_code(judged))


@app.command()
def vote(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run, by its id or path.")],
    csv: Annotated[Path | None, typer.Option("--csv", help="Write every vote here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of this name that is there.")] = False,
    json: Json = False,
) -> None:
    """The tally of the blind votes that were cast on the page: strengths, ties, and how many more votes would settle it."""
    bench: Workbench = context.obj
    found = run_at(bench, run)
    tally = bench.tally(found)
    if csv:
        bench.write_votes(found, csv, force=force)
        in_trouble(f"wrote {csv}")
    if json:
        print_json(votes_json(bench, found))
    else:
        _tell_tally(tally)
    _warn(tally.verdict.warnings)


def _code(judged: Gate) -> int:
    return Refused.exit_code if judged.passes is None else int(not judged.passes)


def _tell(verdict: Verdict) -> None:
    rows = [[_mark(verdict, one), one.checkpoint_id, *_figures(one.value, one.low, one.high), str(one.n)] for one in verdict.scores]
    if rows:
        print_table(["", "checkpoint", verdict.scores[0].metric, "95 %", "n"], rows, right=frozenset({2, 4}))
    say(f"{verdict.reason}.")
    if verdict.unknown and verdict.scores:
        say(f"Not judged: {', '.join(verdict.unknown)}.")


def _mark(verdict: Verdict, score: Score) -> str:
    return "best" if score.checkpoint_id == verdict.best else "tied" if verdict.decides and score.checkpoint_id in verdict.window else ""


def _figures(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    return f"{value:.4g}", "–" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _tell_tally(tally: Tally) -> None:
    rows = []
    for score in tally.verdict.scores:
        value, low, high = chances(score)
        interval = "–" if low is None or high is None else f"{low:.0%} to {high:.0%}"
        rows.append(
            [_mark(tally.verdict, score), score.checkpoint_id, f"{value:.0%}", interval, *map(str, tally.results[score.checkpoint_id])]
        )
    if rows:
        print_table(["", "checkpoint", "preferred", "95 %", "won", "lost", "tied"], rows, right=frozenset({2, 4, 5, 6}))
    say(f"{tally.verdict.reason}.")
    bad = f", {tally.both_bad} of them both bad" if tally.both_bad else ""
    cast = f"{counted(tally.votes, 'vote')} by {counted(len(tally.voters), 'voter')}{bad}"
    say(f"{cast}. {_pairs_told(tally.pairs_seen, tally.pairs - tally.pairs_seen)}")
    if len(tally.verdict.window) > 1:
        say(
            "How many more votes would settle it cannot be said."
            if tally.more is None
            else f"About {tally.more} more votes might settle it."
        )


def _pairs_told(seen: int, left: int) -> str:
    """Which of all pairs of checkpoints have votes."""
    told = f"Of the {seen + left} pairs of checkpoints that there can be, {seen or 'none'} {'has' if seen < 2 else 'have'} votes"
    return f"{told} and {left} {'has' if left == 1 else 'have'} none." if left and seen else f"{told}."


def _warn(warnings: Iterable[str]) -> None:
    for told in warnings:
        in_trouble(f"note: {told}")
