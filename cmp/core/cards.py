"""The words around what is shared: how a checkpoint was chosen, a model's card, and the README of a page.

Whatever comes from a run may hold anything. In Markdown every mark of such a text becomes a character reference, which CommonMark never
reads as structure (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references); in YAML it is a double-quoted scalar.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cmp.core.agreeing import rule_name, steps_text, told_by
from cmp.core.picking import VOTES, Score, Verdict
from cmp.core.present import counted
from cmp.core.publishing import MARK
from cmp.core.runs import Run, plain_text
from cmp.core.votes import Tally, chances

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z", re.ASCII)
# a mark, first such as mean nothing where they stand: in numbers, within words, at the end of a clause
_MARKS = re.compile(r"((?<=[0-9])\.(?=[0-9])|(?<=[^\W\d_])[.:](?=\s|\Z)|(?<=[^\W_])-(?=[^\W_])|[(),'%;?])|[!-/:-@\[-`{-~]")
_JOINER = "\u200d"  # within emoji
_LONGEST_SHORT = 60  # characters of a Space's short description
_NOT_IN_YAML = re.compile("[^\t\n\r -~\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\u2028": "\\L", "\u2029": "\\P"}


def markdown(text: str) -> str:
    """A text as it is, wherever it stands in Markdown: no mark in it means anything, it is one line, and what nobody sees is out."""
    flat = "".join(c for c in " ".join(plain_text(text).split()) if c.isprintable() or c == _JOINER)
    return _MARKS.sub(lambda mark: mark[0] if mark[1] else f"&#{ord(mark[0])};", flat)


def yaml_text(text: str) -> str:
    """A text as a scalar of YAML."""
    escaped = "".join(_ESCAPES.get(c, c) for c in plain_text(text))
    return '"' + _NOT_IN_YAML.sub(lambda c: f"\\x{ord(c[0]):02x}" if ord(c[0]) < 256 else f"\\u{ord(c[0]):04x}", escaped) + '"'


def hub_id(base: str | None) -> str | None:
    """A base model's id where it looks like one of the Hub's; a path is nobody's business."""
    return base if base and _HUB_ID.match(base) and ".." not in base else None


# -- how it was chosen -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rule's verdict in words: a sentence, the scores as a table with its heads, and warnings."""

    title: str
    told: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]


def judgement(run: Run, verdict: Verdict) -> Judgement:
    """What a rule says of a run's checkpoints."""
    metric = "preferred" if verdict.rule == VOTES else verdict.scores[0].metric if verdict.scores else ""
    rows = tuple((_key(score.checkpoint_id), *_figures(verdict, score), str(score.n), _mark(verdict, score)) for score in verdict.scores)
    unknown = [f"not judged: {steps_text(verdict.unknown, [c.id for c in run.checkpoints])}"] if verdict.unknown and verdict.scores else []
    heads = ("checkpoint", metric, "95 %", "n", "")
    return Judgement(rule_name(verdict.rule, begins=True), told_by(verdict), heads, rows, (*verdict.warnings, *unknown))


def _figures(verdict: Verdict, score: Score) -> tuple[str, str]:
    votes = verdict.rule == VOTES
    value, low, high = chances(score) if votes else (score.value, score.low, score.high)
    form = "{:.0%}" if votes else "{:.4g}"
    known = low is not None and high is not None
    return form.format(value), f"{form.format(low)} to {form.format(high)}" if known else "–"


def _mark(verdict: Verdict, score: Score) -> str:
    if score.checkpoint_id == verdict.best:
        return "best"
    return "cannot be told from the best" if verdict.decides and score.checkpoint_id in verdict.window else ""


def _key(checkpoint: str) -> str:
    key = checkpoint.rpartition("@")[2]
    return f"step {key}" if key.isdigit() else key


def how_chosen(run: Run, verdict: Verdict | None, checkpoint: str, *, by_hand: bool) -> tuple[str, ...]:
    """In sentences why this checkpoint: by which rule, and what speaks against being sure of it."""
    name = _key(checkpoint)
    if verdict is None:
        return (f"{name[:1].upper()}{name[1:]} was chosen by hand: nothing that was logged or voted on decides which is the best.",)
    rule = rule_name(verdict.rule)
    first = f"{name} was chosen by hand." if by_hand else f"{name} was chosen by the {rule}."
    lines = [first[:1].upper() + first[1:], told_by(verdict)]
    score = next((one for one in verdict.scores if one.checkpoint_id == checkpoint), None)
    if by_hand and not verdict.decides:
        lines.append(f"{rule_name(verdict.rule, begins=True)} alone does not say which checkpoint is better.")
    elif by_hand and score is None:
        lines.append(f"Of {name} itself the {rule} knows nothing.")
    elif by_hand and checkpoint not in verdict.window:
        lines.append(f"By the {rule} {name} is worse than the best.")
    if score is not None:
        value, interval = _figures(verdict, score)
        lines.append(f"Its {'share of wins' if verdict.rule == VOTES else score.metric} is {value} (95 %: {interval}, n = {score.n}).")
    others = [one for one in verdict.window if one != checkpoint]
    if verdict.decides and checkpoint in verdict.window and others:
        lines.append(f"It cannot be told from {steps_text(others, [c.id for c in run.checkpoints])}.")
    return tuple(lines)


def tally_text(tally: Tally) -> str:
    """What was voted, without the voters' names."""
    bad = f", {tally.both_bad} of them both bad" if tally.both_bad else ""
    seen = f"{tally.pairs_seen} of {tally.pairs} pairs of checkpoints were compared"
    return f"{counted(tally.votes, 'blind vote')} by {counted(len(tally.voters), 'voter')}{bad}; {seen}."


# -- Markdown --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Card:
    """What a model's card says; pictures by their paths beside it. `base` is the base model's id on the Hub, None where it has none."""

    title: str
    repository: str
    base: str | None
    base_told: str
    chosen: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()  # prompt, picture
    grid: str | None = None
    curve: str | None = None
    reading: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    instance: str | None = None
    license: str | None = None


def model_card(card: Card) -> str:
    """The README of a model: front matter and Markdown."""
    parts = [_front_matter(card), f"# {markdown(card.title)}", _usage(card)]
    parts += [f"## How it was chosen\n\n{_lines(card.chosen)}"]
    parts += [_table((one.title, *one.heads[1:]), one.rows) for one in card.judgements if one.rows]
    parts += ["\n".join(f"- {markdown(told)}" for told in card.warnings)] if card.warnings else []
    parts += [f"## Over the steps\n\n![Pictures of every step side by side]({card.grid})"] if card.grid else []
    if card.curve:
        parts.append(f"## Loss\n\n![The loss over the steps of the training]({card.curve})\n\n{_lines(card.reading)}".rstrip())
    parts += [f"## Trained with\n\n{_table(('setting', 'value'), card.settings)}"] if card.settings else []
    parts += [f"## The file\n\n{_table(('', ''), card.facts)}"] if card.facts else []
    return "\n\n".join((*parts, MARK)) + "\n"


def _front_matter(card: Card) -> str:
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-image"]
    lines += [f"license: {yaml_text(card.license)}"] if card.license else []
    lines += [f"base_model: {yaml_text(card.base)}", "base_model_relation: adapter"] if card.base else []
    lines += ["tags:", "- lora", "- diffusers", "- text-to-image"]
    lines += [f"instance_prompt: {yaml_text(card.instance)}"] if card.instance else []
    if card.examples:
        lines.append("widget:")
        for prompt, picture in card.examples:
            lines += [f"- text: {yaml_text(prompt)}", "  output:", f"    url: {yaml_text(picture)}"]
    return "\n".join((*lines, "---"))


def _usage(card: Card) -> str:
    base = card.base or "the base model below"
    prompt = card.instance or (card.examples[0][0] if card.examples else "…")
    code = [
        "from diffusers import DiffusionPipeline",
        "",
        f"pipe = DiffusionPipeline.from_pretrained({_python(base)})",
        f"pipe.load_lora_weights({_python(card.repository)})",
        f"image = pipe({_python(prompt)}).images[0]",
    ]
    told = [f"A LoRA for {markdown(card.base_told)}. Its scale is in its weights: it is loaded as it is, without an alpha."]
    told += [f"It listens to: {markdown(card.instance)}"] if card.instance else []
    return "\n\n".join((*told, "```python\n" + "\n".join(code) + "\n```"))


def _python(text: str) -> str:
    """A literal of one line in ASCII, in which nothing ends a block of code."""
    return ascii(" ".join(plain_text(text).split())).replace("`", "\\x60")


def _lines(lines: Iterable[str]) -> str:
    return "\n\n".join(map(markdown, lines))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(markdown, heads))} |", f"|{' --- |' * len(heads)}"]
    return "\n".join((*lines, *(f"| {' | '.join(map(markdown, row))} |" for row in rows)))


def page_readme(title: str, told: str) -> str:
    """The README of a page: on the Hub its front matter makes it a static Space."""
    short = " ".join(plain_text(title).split())
    short = short if len(short) <= _LONGEST_SHORT else f"{short[: _LONGEST_SHORT - 1]}…"
    lines = [
        "---",
        f"title: {yaml_text(short)}",
        'emoji: "🔍"',
        "colorFrom: blue",
        "colorTo: indigo",
        "sdk: static",
        "app_file: index.html",
    ]
    lines += ["pinned: false", 'short_description: "Checkpoints of a training, side by side"', "---"]
    body = "Open `index.html`: pictures of the checkpoints, the loss, and which of them is the best. No weights are in here."
    return "\n\n".join(("\n".join(lines), f"# {markdown(title)}", markdown(told), body, MARK)).replace("\n\n\n\n", "\n\n") + "\n"
