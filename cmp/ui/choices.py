"""What the Compare tab offers to begin with: which checkpoints are ticked and which prompts stand there. No widget is known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cmp.core.runs import Checkpoint, Run, validation_prompts
from cmp.errors import Refused

T = TypeVar("T")
BASE = "base"
MOST_STEPS = 6  # ticked unasked: as many columns as fit a screen
MOST_PROMPTS = 2


def first_prompts(run: Run, last_used: Sequence[str]) -> tuple[str, ...]:
    """What to draw with a run: what its trainer drew, what it was told to learn, or else what was last drawn with it here."""
    recorded = validation_prompts(run)
    for key in ("instance_prompt", "trigger_words"):
        found = run.settings.get(key)
        if found and found.value:
            recorded = recorded or (tuple(map(str, found.value)) if isinstance(found.value, (list, tuple)) else (str(found.value),))
    return (recorded or tuple(last_used))[:MOST_PROMPTS]


def prompts_for(runs: Sequence[Run], last_used: Callable[[Run], Sequence[str]], text: str | None, before: str | None) -> tuple[str, str]:
    """The prompts to show for these runs, and which of them were only offered; what the user wrote stays.

    `text` and `before` are what this gave the last time, the text as the user has left it; None while the tab has not been opened.
    """
    offer = "\n".join(next((found for run in runs if (found := first_prompts(run, last_used(run)))), ()))
    written = text if text and text.strip() and text != before else None
    return (written, before or "") if written else (offer, offer)


def usable(run: Run) -> tuple[Checkpoint, ...]:
    """The checkpoints that can be drawn with; the Runs tab says what stands against the others."""
    return tuple(checkpoint for checkpoint in run.checkpoints if checkpoint.flaw is None)


def first_picks(runs: Sequence[Run], ticked: Sequence[str], *, fill: bool) -> list[str]:
    """What is ticked of these runs: what was, and with `fill` or where nothing was, some steps of every run without a tick."""
    kept = {run.id: [c.id for c in usable(run) if c.id in ticked] for run in runs}
    if fill or not any(kept.values()):
        most = MOST_STEPS if len(runs) == 1 else MOST_STEPS // 2
        kept = {run.id: kept[run.id] or [c.id for c in spread(usable(run), most)] for run in runs}
    known = any(name not in (BASE, "") for name in ticked)  # the base column may have been taken away on purpose
    base = [BASE] if runs and (BASE in ticked or not known) else []
    return base + [name for names in kept.values() for name in names]


def told_picks(count: int) -> str:
    """What was ticked for somebody who had ticked nothing: the base model, and so many checkpoints."""
    if count < 1:
        return "No checkpoint was ticked, and none of this run can be drawn with; now the base model is."
    return f"No checkpoint was ticked. Now the base model and {count} checkpoint{'s' if count > 1 else ''} are."


def picks_at(run: Run, step: int) -> list[str]:
    """What is ticked to look at one step: its checkpoints, and the base model beside them. Raises Refused if none can be drawn with."""
    there = [checkpoint for checkpoint in run.checkpoints if checkpoint.step == step]
    if flaw := next((c.flaw for c in there if c.flaw and not any(c.flaw is None for c in there)), None):
        raise Refused(f"step {step} of {run.id} cannot be drawn with: {flaw}", "Choose another step.")
    return [BASE, *(checkpoint.id for checkpoint in there if checkpoint.flaw is None)]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
