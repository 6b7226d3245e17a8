"""The verbs that give the disk back: storage, restore."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from cmp.cli.output import Json, in_trouble, print_json, print_table, say
from cmp.cli.telling import QUIET
from cmp.core.present import size_text
from cmp.core.progress import WAITING, Progress
from cmp.core.storage import DROPPED, CleanupPlan, Item, Rules, parse_age, parse_rules
from cmp.errors import BadInput
from cmp.workbench import Workbench
from cmp.workbench.storing import Asked, NotDone, Restored
from cmp.workbench.targets import runs_at

app = typer.Typer(rich_markup_mode=None)

_MOST_TOLD = 10  # things in the trash
_DONE = {"compact": "compacted", "trash": "to the trash", "delete": "deleted", "share": "shared", "keep": "stays"}


@app.command()
def storage(
    context: typer.Context,
    targets: Annotated[list[str] | None, typer.Argument(help="Runs; without one all of them.")] = None,
    keep: Annotated[str | None, typer.Option(help="What stays: best, last, last:3, starred, every:1000; several with commas.")] = None,
    max_count: Annotated[int | None, typer.Option(help="At most so many checkpoints of a run; the oldest go.")] = None,
    max_size: Annotated[str | None, typer.Option(help="At most so much of a run's checkpoints: 20GB.")] = None,
    min_age: Annotated[
        str | None, typer.Option(help="Touch nothing younger (1h), nor with --empty-trash what has lain there for less.")
    ] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Store frozen weights once, losslessly; `restore` gives them back.")] = False,
    drop: Annotated[str | None, typer.Option(help="converted (what can be made again), optimizer (no resuming then).")] = None,
    share: Annotated[
        str | None,
        typer.Option(help="Let equal files of pipelines share their blocks (reflink) or be one file (hardlink)."),
    ] = None,
    empty_trash: Annotated[bool, typer.Option("--empty-trash", help="Delete for good what is in the trash.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; the same as without --yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it the plan is shown.")] = False,
    json: Json = False,
) -> None:
    """What runs occupy, what could be freed, and what would go by given rules. Nothing is changed without --yes."""
    bench: Workbench = context.obj
    if dry_run and yes:
        raise BadInput("--dry-run and --yes were both given", "Use one of them.")
    rules = parse_rules(keep, max_count, max_size, min_age)
    if share not in (None, "reflink", "hardlink"):
        raise BadInput(f"--share is {share!r}", "Use reflink or hardlink.")
    older = parse_age(min_age, "--min-age") if min_age and empty_trash else None
    asked = Asked(compact, _dropped(drop), empty_trash, older, share, left=not targets)
    plan = bench.plan_cleanup(runs_at(bench, targets, "room is made in runs"), rules, asked, best=bench.kept_as_best)
    became: list[Item] = []
    failed: list[NotDone] = []
    if yes:
        _carry_out(bench, plan, became, failed)
        after = bench.plan_cleanup(runs_at(bench, targets, "room is made in runs"), Rules(), Asked(left=not targets))
        items = (*became, *(item for item in plan.items if item.action == "keep"))
        told = replace(after, items=items, before=plan.before, begun=()).as_json(done=True)
        told |= {"after_bytes": after.before, "trash_bytes": after.trash_before}
        told["failed"] = [{"path": str(one.item.path), **one.error.as_json()} for one in failed]
    else:
        told = plan.as_json(done=False)
    if json:
        print_json(told)
    else:
        _tell(told, plan.changes, yes)
    if failed:
        raise typer.Exit(failed[0].error.exit_code if len(plan.changes) == 1 else 1)


def _dropped(text: str | None) -> frozenset[str]:
    named = frozenset(part.strip() for part in (text or "").split(",") if part.strip())
    if unknown := sorted(named - set(DROPPED)):
        raise BadInput(f"--drop has {unknown[0]!r}", f"Use one of: {', '.join(DROPPED)}.")
    return named


def _carry_out(bench: Workbench, plan: CleanupPlan, became: list[Item], failed: list[NotDone]) -> None:
    """Does it, with one line for each thing, and one where nothing came for a while."""
    told_at = time.monotonic()
    for step in bench.clean_up(plan):
        if isinstance(step, Progress):
            if step.what == WAITING or time.monotonic() - told_at < QUIET:
                continue
            in_trouble(step.what)
        elif isinstance(step, NotDone):
            failed.append(step)
            in_trouble(f"not done: {step.item.path}: {step.error.told}")
        else:
            became.append(step)
            in_trouble(f"{_DONE[step.action]}: {step.path} ({size_text(step.bytes)}){f'; undo: {step.undo}' if step.undo else ''}")
        told_at = time.monotonic()


def _tell(told: Mapping[str, Any], changes: tuple[Item, ...], done: bool) -> None:
    """The plan and what it leaves; of what was done, which was told as it was done, the sum alone."""
    sizes = f"{size_text(told['before_bytes'])} before, {size_text(told['after_bytes'])} {'now' if done else 'then'}"
    in_trash = f"; {size_text(told['trash_bytes'])} of that in the trash"
    if done:
        counts = Counter(_DONE[item["action"]] for item in told["items"] if item["action"] != "keep")
        say(f"{', '.join(f'{count} {how}' for how, count in counts.items()) or 'nothing was to be done'}; {sizes}{in_trash}")
        return
    _tell_runs(told["runs"])
    _tell_trash([*(each for run in told["runs"] for each in run["trash"]), *told["left_in_trash"]])
    for line in told["begun"]:
        in_trouble(f"not ended: {line}; --yes ends it")
    rows = [[item["action"], size_text(item["bytes"]), item["path"], item["why"]] for item in told["items"]]
    if rows:
        print_table(["", "bytes", "what", "why"], rows, right=frozenset({1}))
    if changes:
        say(f"{sizes}{in_trash}")
        say("Nothing was changed: --yes does it. What goes to the trash is freed by --empty-trash, and until then `restore ID` undoes it.")
        return
    say(f"{size_text(told['before_bytes'])} in all{in_trash}")
    if rows:
        say("Nothing goes by these rules.")
    elif offers := _offers(told["runs"]):
        say(f"To see what would go, add {', '.join(offers)}.")


def _offers(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options that would free something now, each with how much that is."""
    sums: Counter[str] = Counter()
    for run in runs:
        sums.update({kind: size for kind, size in run["could_be_freed"].items() if not (kind == "compact" and run["compact_from"])})
    options = {"compact": "--compact", "trash": "--empty-trash"}
    return [f"{options.get(kind, f'--drop {kind}')} (frees {size_text(size)})" for kind, size in sums.items() if size]


def _tell_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    for run in runs:
        say(f"{run['run']}   {size_text(run['bytes'])}, {run['state']}")
        for kind, size in run["could_be_freed"].items():
            if size:
                wait = f", from {run['compact_from']} on: it is too young now" if kind == "compact" and run["compact_from"] else ""
                say(f"  could be freed, {kind}: {size_text(size)}{wait}")
        if coming := run["forecast"]:
            told_free = f"{size_text(coming['free_bytes'])} are free{'' if coming['fits'] else ': that is NOT enough'}"
            say(f"  still to come: {coming['checkpoints']} checkpoints, {size_text(coming['needed_bytes'])}; {told_free}")


def _tell_trash(lying: Sequence[Mapping[str, Any]]) -> None:
    """What lies in the trash, the newest first; runs of one folder share theirs."""
    each_once = list({one["trash_id"]: one for one in lying}.values())
    newest = sorted(each_once, key=lambda one: str(one["moved_at"]), reverse=True)
    if newest:
        say("In the trash, to be brought back by `restore ID`:")
        rows = [
            [f"  {one['trash_id']}", size_text(one["bytes"]), str(one["moved_at"] or "–"), str(one["path"] or "–")]
            for one in newest[:_MOST_TOLD]
        ]  # fmt: skip
        print_table(["  id", "bytes", "moved there", "what it was"], rows, right=frozenset({1}))
    if len(newest) > _MOST_TOLD:
        say(f"  and {len(newest) - _MOST_TOLD} more, which --json names")


@app.command()
def restore(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A compacted run or checkpoint, one in the trash, or the id of a thing there.")],
    json: Json = False,
) -> None:
    """Bring back a compacted checkpoint to the last byte, or what was moved to the trash."""
    bench: Workbench = context.obj
    restored: list[Restored] = []
    before = ""
    for step in bench.restore(target):
        if isinstance(step, Restored):
            restored.append(step)
            in_trouble(f"restored {step.path}")
        elif step.what != before:
            in_trouble(step.what)
            before = step.what
    if json:
        print_json({"restored": [one.as_json() for one in restored]})
    else:
        say(f"restored {len(restored)}")
