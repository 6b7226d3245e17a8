"""The verb that measures: the loss of every checkpoint on the same images, noise and timesteps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json, print_table, say
from cmp.cli.score_telling import heading, tell_bands, tell_blocks, tell_limits, value_of
from cmp.cli.telling import at_times
from cmp.core.axes import parse_text_axis
from cmp.core.choosing import choose_checkpoints
from cmp.core.draws import USUAL_DRAWS
from cmp.core.evidence import BASE
from cmp.core.measured import LOSS, Measured, MeasurePlan, MeasureSpec, NotMeasured, by_band
from cmp.core.measured_told import BY_BLOCK, Known, base_value, gaps_known, measures_json, not_judged, only_asked, plan_told, verdicts_known
from cmp.core.pace import duration_text
from cmp.core.picking import Verdict
from cmp.core.runs import Checkpoint, Run
from cmp.core.score_asking import ScoreAnswers
from cmp.disk.ready import Answers
from cmp.workbench import Workbench
from cmp.workbench.targets import in_full

app = typer.Typer(rich_markup_mode=None)


@app.command()
def measure(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run, or one checkpoint of it, by its id or path.")],
    held_out: Annotated[
        Path | None, typer.Option(help="A folder of images that were not trained with, with captions; remembered for the run.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="A folder of images that were trained with; their loss shows what is learned by heart.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="What to measure: loss; of pictures that were drawn clip, cmmd, nearest, diversity, leak, identity, preference; of the "
            "weights update. Several with commas."
        ),
    ] = LOSS,
    clip: Annotated[str | None, typer.Option(help="A CLIP model: an id in the Hugging Face cache or a folder.")] = None,
    encoder: Annotated[str | None, typer.Option(help="An image encoder such as DINOv2: an id or a folder.")] = None,
    preference: Annotated[str | None, typer.Option(help="A preference model in CLIP's form such as PickScore: an id or a folder.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="A folder of images: for cmmd what pictures are to resemble, for identity the subject.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="For leak: the words that call up what was trained. [default: the run's trigger words]")
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="Which pictures: drawn (by grids) or trainer. [default: those of the most checkpoints]")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help=f"Draws of noise and timestep for each image. [default: as last, else {USUAL_DRAWS}]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Other draws for each number. [default: as last, else 0]")] = None,
    checkpoints: Annotated[str, typer.Option(help="Steps: all, last 4, 500, 1000, 500:3000:500 …")] = "all",
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured and how long it takes, and measure nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure the loss of checkpoints on images that they were not trained with: the same noise and timesteps for all of them. Or score
    the pictures that are there, or measure how far weights have moved.

    Captions come from metadata.jsonl, captions.json, or a .txt beside each image. What was measured is kept by the weights: another
    checkpoint costs only itself. Nothing is drawn: `grid` draws pictures.
    """
    bench: Workbench = context.obj
    found, one = bench.find(run)
    chosen = (one,) if one else _chosen(bench, found, checkpoints)
    held_out, training = (folder.expanduser().absolute() if folder else None for folder in (held_out, training))
    looking = [in_full(name) for name in (clip, encoder, preference, str(reference or ""))]
    asked = ScoreAnswers(looking[0], looking[1], looking[2], looking[3], subject or "", pictures or "")
    metrics = tuple(dict.fromkeys(parse_text_axis(metric, "metric")))
    spec = MeasureSpec(metrics, chosen, held_out, training, draws, seed, asked.pairs)
    given = read_answers(alpha, base)
    plan = bench.plan_measure(found, spec, given)
    if dry_run:
        _tell_plan(found, plan, json)
        _leave(plan.faults, len(chosen) * len(plan.metrics))
        return
    for told in plan_told(plan):
        in_trouble(told)
    told_before = set[str]()
    faults, count = _measure(bench, found, spec, given, plan, told_before)
    known = only_asked(bench.measurements(found), spec.metrics)
    if json:
        print_json(measures_json(found, known, faults))
    else:
        _tell(found, known, told_before)
    _leave(faults, count)


def _chosen(bench: Workbench, run: Run, axis: str) -> tuple[Checkpoint, ...]:
    return choose_checkpoints(axis, run.checkpoints, lambda count: bench.best_of(run, run.checkpoints, count)[0])


def _measure(
    bench: Workbench, run: Run, spec: MeasureSpec, given: Answers, plan: MeasurePlan, before: set[str]
) -> tuple[list[NotMeasured], int]:
    """What could not be measured, and of how many values of checkpoints. Each is told as it comes, and put to what was told
    `before`.
    """
    faults: list[NotMeasured] = []
    began = time.monotonic()
    count = 0
    for item in at_times(bench.follow_measure(run, spec, given), began):
        assert isinstance(item, Measured | NotMeasured)
        count += item.checkpoint_id != BASE
        _tell_item(item, before)
        if isinstance(item, NotMeasured):
            faults.append(item)
        elif plan.seconds is None and plan.new > 1 and not item.reused:  # the first of them: nothing has told the pace before
            in_trouble(f"{duration_text((time.monotonic() - began) * (plan.new - 1), about=True)} to go")
            plan = replace(plan, seconds=0.0)
    return faults, count


def _tell_item(item: Measured | NotMeasured, before: set[str]) -> None:
    """A line for a value, and whatever is to be known of it that was not told `before`."""
    name = "base model" if item.checkpoint_id == BASE else item.checkpoint_id
    if isinstance(item, NotMeasured):
        in_trouble(f"{name}, {item.metric}: not measured: {item.error.told}")
        return
    for told in item.told:
        if told not in before:
            in_trouble(f"note: {told}")
    before.update(item.told)
    in_trouble(f"{name}, {item.metric}: {value_of(item):.4g}{', known' if item.reused else ''}")


def _leave(faults: Sequence[NotMeasured], count: int) -> None:
    """Ends with 1 if some could not be measured, or with their own code if none could for the one same reason."""
    reasons = {(fault.error.message, fault.error.exit_code) for fault in faults}
    if faults:
        raise typer.Exit(faults[0].error.exit_code if len(faults) >= count and len(reasons) == 1 else 1)


# -- what is told ----------------------------------------------------------------------------------------------------------


def _tell_plan(run: Run, plan: MeasurePlan, json: bool) -> None:
    for told in plan.told:
        in_trouble(f"note: {told}")
    for fault in plan.faults:
        in_trouble(f"cannot be measured: {fault.checkpoint_id}: {fault.error.told}")
    if json:
        print_json({"run": run.id, "scores": [], **plan.as_json()})
        return
    for told in plan_told(plan):
        say(told)


def _tell(run: Run, known: Known, before: set[str]) -> None:
    verdicts = verdicts_known(run, known)
    for metric, _, verdict in verdicts:
        say(heading(metric, known[metric]))
        rows = [
            [_mark(verdict, one.checkpoint_id), one.checkpoint_id, f"{one.value:.4f}", _interval(one.low, one.high), str(one.n)]
            for one in verdict.scores
        ]
        if (zero := base_value(metric, known[metric])) is not None:
            rows.append(["", "base model", f"{zero:.4f}", "–", rows[0][-1]])
        print_table(["", "checkpoint", metric, "95 %", "n"], rows, right=frozenset({2, 4}))
        bands = {name: told for name, told in by_band(known[metric]).items() if name != BASE}
        if bands:
            say("")
            (tell_blocks if metric in BY_BLOCK else tell_bands)(bands, [score.checkpoint_id for score in verdict.scores])
        if len(verdict.scores) > 1:
            say(f"{verdict.reason}.")
        tell_limits(metric)
        say("")
        for told in (text for text in verdict.warnings if text not in before):
            in_trouble(f"note: {told}")
    for metric, lost in not_judged(run, known).items():
        if metric not in {judged for judged, _, _ in verdicts}:  # where others are judged, that has told it
            in_trouble(f"note: {lost}")
    if gaps := gaps_known(verdicts):
        say("learned by heart: held-out minus training loss, in shares of the base's")
        print_table(
            ["checkpoint", "gap", "95 %"],
            [[gap.checkpoint_id, f"{gap.value:+.4f}", _interval(gap.low, gap.high)] for gap in gaps],
            right=frozenset({1}),
        )


def _mark(verdict: Verdict, name: str) -> str:
    if not verdict.decides or len(verdict.scores) < 2:
        return ""
    return "best" if name == verdict.best else "tied" if name in verdict.window else ""


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.4f} to {high:.4f}"
