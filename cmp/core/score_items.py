"""Which pictures are scored: the same prompts and seeds of every checkpoint, drawn in the same way; and what is missing to that."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmp.core.present import counted, shortened
from cmp.core.samples import Within

CELLS, SAMPLES = "drawn", "trainer"  # pictures of grids, and those that the trainer left


@dataclass(frozen=True, slots=True)
class Picture:
    """Where a picture lies; `within` is None for a file that is the picture itself."""

    path: Path
    within: Within | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What pictures of different checkpoints share: a prompt, and what makes it one picture (a seed, or the trainer's count).

    `prompt` is None where the trainer did not leave it.
    """

    prompt: str | None
    mark: str
    negative: str = ""

    @property
    def group(self) -> str:
        """What pictures of different seeds share."""
        return f"{self.prompt if self.prompt is not None else self.mark.rpartition(', ')[0]}\0{self.negative}"

    @property
    def name(self) -> str:
        kept = f", without {self.negative}" if self.negative else ""
        return f"{self.prompt or ''}{kept} · {self.mark}".removeprefix(" · ")


Drawn = Mapping[Item, Picture]


@dataclass(frozen=True, slots=True)
class Shown:
    """The pictures of one way of drawing that are scored: `pictures` by checkpoint id, each in the order of `items`.

    `base` are the base model's, None where it lacks one. `without` are checkpoints with no picture of this kind, `lacking` those that lack
    some, with how many items are left out for that.
    """

    source: str
    setting: str
    items: tuple[Item, ...]
    pictures: Mapping[str, tuple[Picture, ...]]
    base: tuple[Picture, ...] | None
    without: tuple[str, ...] = ()
    lacking: tuple[tuple[str, int], ...] = ()
    settings: int = 1

    def only(self, kept: Sequence[int]) -> Shown:
        """The same with some of the items alone, by their places."""
        items = tuple(self.items[i] for i in kept)
        pictures = {name: tuple(own[i] for i in kept) for name, own in self.pictures.items()}
        base = None if self.base is None else tuple(self.base[i] for i in kept)
        return Shown(self.source, self.setting, items, pictures, base, self.without, self.lacking, self.settings)

    @property
    def told(self) -> tuple[str, ...]:
        """What is to be known of the choice, in words."""
        told = []
        if self.without:
            told.append(f"no such picture is there of {_keys(self.without)}")
        told += [f"{counted(count, 'picture')} of other checkpoints are left out, as {_keys([n])} lacks them" for n, count in self.lacking]
        if self.settings > 1:
            told.append(f"pictures were drawn in {self.settings} ways; these are of the one with the most: {self.setting}")
        return tuple(told)


def choose_pictures(source: str, found: Mapping[str, Mapping[str, Drawn]], ids: Sequence[str], bases: Mapping[str, Drawn]) -> Shown | None:
    """The way of drawing (`found`: way → checkpoint id → pictures) with the most pictures that all its checkpoints share; None without one.

    Ways in which the most checkpoints share items go before those with the most items. `bases`: way → the base model's pictures.
    """
    best: tuple[tuple[int, int, str], Shown] | None = None
    for setting, drawn in sorted(found.items()):
        names = [name for name in ids if drawn.get(name)]
        if not names:
            continue
        every = dict.fromkeys(item for name in names for item in drawn[name])
        items = sorted((item for item in every if all(item in drawn[name] for name in names)), key=_order)
        base = bases.get(setting, {})
        pictures = {name: tuple(drawn[name][item] for item in items) for name in names}
        lacking = tuple((name, lost) for name in names if (lost := sum(item not in drawn[name] for item in every)))
        own = tuple(base[item] for item in items) if items and all(item in base for item in items) else None
        shown = Shown(
            source, setting, tuple(items), pictures, own, tuple(n for n in ids if n not in names), lacking, sum(map(bool, found.values()))
        )
        rank = (len(names) if items else 0, len(items), setting)
        if items and (best is None or rank > best[0]):
            best = rank, shown
    return best[1] if best else None


def _order(item: Item) -> tuple[str, str, int, str]:
    digits = "".join(c for c in item.mark.rpartition(" ")[2] if c.isdigit())
    return item.prompt or "", item.negative, int(digits or 0), item.mark


def _keys(names: Iterable[str]) -> str:
    keys = [key if not (key := name.rpartition("@")[2]).isdigit() else f"step {key}" for name in names]
    return f"{', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}"


def drawing_hint(run_id: str, shown: Shown | None, *, base: bool = False) -> str:
    """The command that would draw what is missing; the user decides whether it is worth its time."""
    prompts = list(dict.fromkeys(item.prompt for item in shown.items if item.prompt)) if shown else []
    asked = " ".join(f"--prompt {shlex.quote(shortened(text, 200))}" for text in prompts[:4]) or '--prompt "…"'
    more = " …" if len(prompts) > 4 else ""
    return f"`python -m cmp grid {shlex.quote(run_id)} {asked}{more} --seeds 0-7{' --base-column' if base else ''}` draws them."
