"""What the targets of a verb mean: runs, checkpoints, LoRAs beside them. Command line and REST take them alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.batch import every_steps
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ready import Answers
from cmp.errors import BadInput, NotFound, Refused

if TYPE_CHECKING:
    from cmp.workbench import Workbench

Found = tuple[Run, Checkpoint]


@dataclass(frozen=True, slots=True)
class Columns:
    """The checkpoints of a grid and their runs; `flawed` are passed over, `told` is how the best were found, in words."""

    runs: tuple[Run, ...]
    checkpoints: tuple[Checkpoint, ...]
    flawed: tuple[Checkpoint, ...]
    told: tuple[str, ...]


def run_at(bench: Workbench, target: str, about: str = "those of a run are compared") -> Run:
    """The run that a target means; raises BadInput for a checkpoint, and says what the verb is about."""
    run, checkpoint = bench.find(target)
    if checkpoint is not None:
        raise BadInput(f"{target!r} is a checkpoint, and {about}", f"Name the run: {run.id}.")
    return run


def runs_at(bench: Workbench, targets: Iterable[str] | None, about: str) -> list[Run]:
    """The same of several, each once; without targets all runs."""
    if not targets:
        return list(bench.library().runs)
    found = (run_at(bench, target, about) for target in targets)
    return list({run.place: run for run in found}.values())


def expand_targets(bench: Workbench, targets: Iterable[str], every: int | None = None) -> list[Found]:
    """The checkpoints that targets mean: a run stands for all of its own. Raises BadInput or NotFound."""
    found: dict[tuple[Path, str], Found] = {}
    for target in targets:
        run, checkpoint = bench.find(target)
        if checkpoint is None and not run.checkpoints:
            raise BadInput(f"run {run.id!r} has no checkpoints", "There is nothing to convert yet.")
        for c in (checkpoint,) if checkpoint else run.checkpoints:
            found[run.place, c.key] = (run, c)
    if every is None:
        return list(found.values())
    kept = every_steps([c for _, c in found.values()], every)
    return [(run, c) for run, c in found.values() if c in kept]


def keep_best(bench: Workbench, wanted: Sequence[Found], count: int) -> tuple[list[Found], list[str]]:
    """Of each run the best by the verdict on its held-out loss, and in words how sure that is; raises BadInput where it logged none."""
    kept: list[Found] = []
    words: list[str] = []
    for place in dict.fromkeys(run.place for run, _ in wanted):
        run = next(run for run, _ in wanted if run.place == place)
        own = [c for other, c in wanted if other.place == place]
        best, told = bench.best_of(run, own, count)
        words.append(told)
        kept += [(run, c) for c in best]
    return kept, words


def choose_columns(bench: Workbench, targets: Iterable[str], axis: str, *, only_ids: bool = False) -> Columns:
    """What a grid of these targets is drawn with; of runs, those that the axis chooses. Raises NotFound where nothing can be drawn."""
    from cmp.core.choosing import choose_checkpoints, passed_over

    runs, chosen, flawed, words = [], [], [], []  # type: ignore[var-annotated]
    names = tuple(targets)
    for name in names:
        run, checkpoint = bench.find(name, only_ids=only_ids)
        runs.append(run)

        def best(count: int, run: Run = run) -> Sequence[Checkpoint]:
            found, told = bench.best_of(run, run.checkpoints, count)
            words.append(told)
            return found

        own = (checkpoint,) if checkpoint else choose_checkpoints(axis, run.checkpoints, best)
        chosen.extend(own)
        flawed += () if checkpoint else passed_over(axis, run.checkpoints, own)
    if not chosen:
        raise NotFound(f"no checkpoint of {', '.join(names)} can be drawn", "`python -m cmp list` shows what stands against each.")
    return Columns(tuple(runs), tuple(dict.fromkeys(chosen)), tuple(flawed), tuple(words))


def find_stacked(bench: Workbench, text: str) -> tuple[Run, Checkpoint, tuple[float, ...]]:
    """A LoRA to be worn beside, as TARGET or TARGET:STRENGTHS; raises BadInput for a run of several checkpoints."""
    from cmp.core.axes import split_stack

    target, strengths = split_stack(text)
    run, checkpoint = bench.find(target)
    if checkpoint is None:
        if len(run.checkpoints) != 1:
            told = f"{target!r}, to be stacked, is a run of {len(run.checkpoints)} checkpoints"
            raise BadInput(told, f"Name one, such as {run.id}@final.")
        checkpoint = run.checkpoints[0]
    return run, checkpoint, strengths


def in_full(name: str | None) -> str:
    """A model's name; of a folder that is there its whole path, since another process may take the work up again elsewhere."""
    place = Path(name).expanduser() if name else None
    return str(place.absolute()) if place and place.is_dir() else name or ""


def take_answer(bench: Workbench, target: str, given: Answers) -> Run:
    """Remembers an answer for the run of a checkpoint once that can be read with it, and gives the run; raises what stands against it."""
    run, checkpoint = bench.find(target, only_ids=True)
    if checkpoint is None:
        raise BadInput(f"{target!r} is a run", "Choose one of its checkpoints.")
    if given.base is not None:
        bench.ready(run, checkpoint, Answers(given.alpha if given.alpha is not None else bench.answers(run).alpha, given.base))
    elif (found := bench.show(target, given)).get("scale") is None:
        forms = found["forms"]
        raise Refused(f"alpha {given.alpha:g} does not help here", next(iter(forms.values()), "") if isinstance(forms, dict) else "")
    bench.answer(run, given)
    return run
