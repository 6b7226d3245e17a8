"""The chosen LoRA as a folder that diffusers loads and the Hub shows: the weights, a card, and its pictures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp import __version__
from cmp.core.cards import Card, how_chosen, hub_id, judgement, model_card, tally_text
from cmp.core.progress import Progress
from cmp.core.publishing import README, WEIGHTS, SharedFile, Wanted
from cmp.core.runs import Checkpoint
from cmp.disk.ready import Answers
from cmp.errors import CmpError
from cmp.workbench.exporting import Matrix, write_export
from cmp.workbench.share_parts import LARGE, Draft, handed_over, loss_of, settings_of

if TYPE_CHECKING:
    from cmp.core.conversion import Base, ConversionPlan
    from cmp.workbench.sharing import Handed, Sharing

_MOST_EXAMPLES = 6
_NUMBERED = re.compile(r"prompt [0-9]+\Z", re.ASCII)  # what a prompt is called that the trainer did not write down
_SHEET = 4000  # pixels of the card's grid at most


def write_model(
    bench: Sharing, subject: Handed, wanted: Wanted, given: Answers, draft: Draft
) -> Generator[Progress, None, None]:  # fmt: skip
    """Fills the draft with the weights of the chosen checkpoint, its card and pictures. Raises what stands against converting it."""
    from cmp.disk.publishing import tell_metadata
    from cmp.workbench.sharing import raise_failed

    assert subject.chosen is not None
    target = draft.folder / WEIGHTS
    plan = bench.plan_checkpoint(subject.run, subject.chosen, "lora", given, output=target)
    yield from raise_failed(bench.convert_all([plan], given))
    tell_metadata(target, draft.cut)
    draft.files[WEIGHTS] = SharedFile(WEIGHTS, target.stat().st_size, "the LoRA")
    yield Progress(0, 0, "preparing pictures")
    examples = tuple(_examples(bench, subject, subject.chosen, draft))
    grid = _grid(bench, subject, draft)
    loss = loss_of(subject.run, subject.curves, subject.name, "png")
    curve = draft.add_image(loss[0], "png", "the loss") if loss else None
    if not examples:
        draft.notes.append(f"no picture of {subject.chosen.id} is here, so the card shows none: draw a grid first")
    card = _card(bench, subject, plan, wanted, draft)
    reading = tuple(map(draft.cut, loss[1])) if loss else ()
    told = model_card(_with(card, examples=examples, grid=grid, curve=curve, reading=reading))
    draft.write(README, told.encode("utf-8", "replace"), "the model's card")


def _with(card: Card, **more: Any) -> Card:
    from dataclasses import replace

    return replace(card, **more)


def _card(bench: Sharing, subject: Handed, plan: ConversionPlan, wanted: Wanted, draft: Draft) -> Card:
    from cmp.core.agreeing import leading

    chosen, lead = plan.checkpoint, leading(subject.verdicts)
    by_hand = lead is None or lead.best != chosen.id
    votes = [tally_text(bench.tally(subject.run))] if bench.votes(subject.run) else []
    judged = [judgement(subject.run, verdict) for verdict in subject.verdicts]
    settings = dict(settings_of(subject.run, draft.cut))
    base = plan.base.id if plan.base else subject.run.base_model
    return Card(
        f"{subject.name}, {f'step {chosen.step}' if chosen.key == str(chosen.step) else chosen.key}",
        wanted.model or "",
        _id_elsewhere(base, subject.own.folder),
        draft.cut(base) if base else "a base model that nothing names",
        tuple(map(draft.cut, (*how_chosen(subject.run, lead, chosen.id, by_hand=by_hand), *votes))),
        tuple(map(draft.cut, dict.fromkeys(warning for one in judged for warning in one.warnings))),
        tuple(judged),
        settings=tuple(settings.items()),
        facts=_facts(plan, draft),
        instance=_instance(settings),
        license=wanted.license,
    )


def _id_elsewhere(base: str | None, folder: Path) -> str | None:
    """A base's id on the Hub; None for what is a path here, also one that looks like an id."""
    name = hub_id(base)
    return None if name is None or any((place / name).exists() for place in (Path.cwd(), folder, folder.parent)) else name


def _instance(settings: dict[str, str]) -> str | None:
    return next((settings[name] for name in ("instance_prompt", "trigger_words") if settings.get(name)), None)


def _facts(plan: ConversionPlan, draft: Draft) -> tuple[tuple[str, str], ...]:
    content = (draft.folder / WEIGHTS).read_bytes()
    facts = [("file", WEIGHTS), ("bytes", f"{len(content):,}"), ("SHA-256", hashlib.sha256(content).hexdigest())]
    if plan.scale:
        scale = f"alpha {plan.scale.alpha:g} / rank {plan.scale.rank}, folded into the weights; told by {plan.scale.source}"
        facts.append(("scale", draft.cut(scale)))
    facts += [("base", draft.cut(_base_told(plan.base)))] if plan.base else []
    return (*facts, ("written by", f"cmp {__version__}"))


def _base_told(base: Base) -> str:
    return f"{base.id} (proof: {base.proof}, {base.source})"


# -- pictures --------------------------------------------------------------------------------------------------------------


def _examples(bench: Sharing, subject: Handed, chosen: Checkpoint, draft: Draft) -> Iterator[tuple[str, str]]:
    """Pictures of the chosen checkpoint with their prompts, one of each; if none was drawn here, those of its trainer at this step."""
    from cmp.pictures.bare import bare_picture

    told: dict[str, None] = {}
    for prompt, path in (*_drawn_of(bench, subject, chosen), *_left_by_trainer(bench, subject, chosen, draft)):
        if prompt in told or len(told) == _MOST_EXAMPLES:
            continue
        try:
            picture = bare_picture(path, LARGE)
        except CmpError:
            continue
        told[prompt] = None
        yield prompt, draft.add_image(picture, "webp", "a picture of the chosen checkpoint")


def _drawn_of(bench: Sharing, subject: Handed, chosen: Checkpoint) -> Iterator[tuple[str, Path]]:
    own = [one for one in subject.shown if one.checkpoint == chosen.id and one.row[3] == 1]  # at full strength, as it is loaded
    return ((one.prompt, bench.store.cell_path(one.key)) for one in own)


def _left_by_trainer(bench: Sharing, subject: Handed, chosen: Checkpoint, draft: Draft) -> Iterator[tuple[str, Path]]:
    from cmp.core.arranging import read_matrix

    for _, value in subject.matrices:
        if value["urls"].get("settings"):  # drawn here
            continue
        matrix = Matrix(bench, value, scratch=draft.folder / "within")
        axes, cells = read_matrix(value)
        places = {axis.key: number for number, axis in enumerate(axes)}
        for cell in cells:
            step, prompt = cell.at[places["step"]], cell.at[places["prompt"]]
            if step is None or prompt is None or chosen.step is None or axes[places["step"]].values[step].get("step") != chosen.step:
                continue
            told = str(axes[places["prompt"]].values[prompt]["label"])
            if not _NUMBERED.match(told) and (path := matrix.path_of(cell)):
                yield told, path


def _grid(bench: Sharing, subject: Handed, draft: Draft) -> str | None:
    """All steps side by side as one picture; None without any."""
    from cmp.pictures.bare import bare_picture

    if not subject.matrices:
        return None
    scratch = draft.folder / "within"
    scratch.mkdir(exist_ok=True)
    matrix = Matrix(bench, subject.matrices[0][1], scratch=scratch)
    handed = Matrix(bench, handed_over(matrix, draft), scratch=scratch)
    sheet = write_export("sheet", handed, scratch / "sheet.png").files[0]
    return draft.add_image(bare_picture(sheet, _SHEET), "webp", "pictures of every step side by side")
