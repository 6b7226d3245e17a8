"""Which pictures are scored: the same prompts and seeds of every checkpoint, drawn in the same way; and what is missing to that."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cmp.core.present import counted
from cmp.core.samples import Within

_MOST_PROMPTS = 8
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


@dataclass(frozen=True, slots=True)
class Way:
    """How pictures were drawn, in words that tell two ways apart; of two alike the one of more `effort` is looked at.

    `options` are those with which `grid` draws so.
    """

    words: str
    effort: float = 0.0
    options: str = field(default="", compare=False)


Drawn = Mapping[Item, Picture]


@dataclass(frozen=True, slots=True)
class Shown:
    """The pictures of one way of drawing that are scored: `pictures` by checkpoint id, each in the order of `items`.

    `bases` are the base model's, None where it has none. `without` are checkpoints with no picture of this kind, `lacking` those that lack
    some, with how many items are left out for that.
    """

    source: str
    way: Way
    items: tuple[Item, ...]
    pictures: Mapping[str, tuple[Picture, ...]]
    bases: tuple[Picture | None, ...]
    without: tuple[str, ...] = ()
    lacking: tuple[tuple[str, int], ...] = ()
    ways: int = 1

    def only(self, kept: Sequence[int]) -> Shown:
        """The same with some of the items alone, by their places."""
        items = tuple(self.items[i] for i in kept)
        pictures = {name: tuple(own[i] for i in kept) for name, own in self.pictures.items()}
        return replace(self, items=items, pictures=pictures, bases=tuple(self.bases[i] for i in kept))

    @property
    def base(self) -> tuple[Picture, ...] | None:
        """The base model's pictures of all items, None where one is missing."""
        own = tuple(picture for picture in self.bases if picture is not None)
        return own if len(own) == len(self.items) else None

    @property
    def told(self) -> tuple[str, ...]:
        """What is to be known of the choice, in words."""
        told = []
        if self.without:
            told.append(f"no such picture is there of {_keys(self.without)}")
        told += [f"{counted(count, 'picture')} of other checkpoints are left out, as {_keys([n])} lacks them" for n, count in self.lacking]
        if self.ways > 1:
            told.append(f"there are pictures of {self.ways} ways of drawing; these were drawn with {self.way.words}")
        return tuple(told)


def choose_pictures(source: str, found: Mapping[Way, Mapping[str, Drawn]], ids: Sequence[str], bases: Mapping[Way, Drawn]) -> Shown | None:
    """The way of drawing of which the most checkpoints (`ids`) share the most pictures; None where those that have any share none.

    `found`: way → checkpoint id → pictures; `bases`: way → the base model's.
    """
    several = sum(any(drawn.get(name) for name in ids) for drawn in found.values())
    shown = [(way, one) for way, drawn in found.items() if (one := _shared(source, way, drawn, ids, bases.get(way, {}), several))]
    best = max(shown, key=lambda pair: (len(pair[1].pictures), len(pair[1].items), pair[0].effort, pair[0].words), default=None)
    return best[1] if best else None


def _shared(source: str, way: Way, drawn: Mapping[str, Drawn], ids: Sequence[str], base: Drawn, ways: int) -> Shown | None:
    names = [name for name in ids if drawn.get(name)]
    every = dict.fromkeys(item for name in names for item in drawn[name])
    items = tuple(sorted((item for item in every if all(item in drawn[name] for name in names)), key=_order))
    if not items:
        return None
    pictures = {name: tuple(drawn[name][item] for item in items) for name in names}
    own = tuple(base.get(item) for item in items)
    lacking = tuple((name, lost) for name in names if (lost := sum(item not in drawn[name] for item in every)))
    return Shown(source, way, items, pictures, own, tuple(name for name in ids if name not in names), lacking, ways)


def _order(item: Item) -> tuple[str, str, int, str]:
    digits = "".join(c for c in item.mark.rpartition(" ")[2] if c.isdigit())
    return item.prompt or "", item.negative, int(digits or 0), item.mark


def _keys(names: Iterable[str]) -> str:
    keys = [key if not (key := name.rpartition("@")[2]).isdigit() else f"step {key}" for name in names]
    return f"{', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}"


def drawing_hint(run_id: str, shown: Shown | None = None, missing: Sequence[str] = (), *, base: bool = False) -> str:
    """The command that draws what is missing (`missing`: the checkpoints' ids) as the others were; whether that is worth its time is the
    user's to say.
    """
    words = ["python -m cmp grid", shlex.quote(run_id)]
    if missing:
        words.append(f"--checkpoints {shlex.quote(', '.join(name.rpartition('@')[2] for name in missing))}")
    drawn = [item for item in shown.items if item.prompt and item.mark.startswith("seed ")] if shown else []
    prompts = dict.fromkeys(f"{item.prompt}{f' --n {item.negative}' if item.negative else ''}" for item in drawn)
    seeds = dict.fromkeys(item.mark.removeprefix("seed ") for item in drawn)
    words += [f"--prompt {shlex.quote(text)}" for text in list(prompts)[:_MOST_PROMPTS]] or ["--prompt …"]
    words += ["…"] if len(prompts) > _MOST_PROMPTS else []
    words += [f"--seeds {','.join(seeds) or '0-7'}", *([shown.way.options] if shown and shown.way.options else [])]
    return f"Nothing is drawn unasked: `{' '.join([*words, *(['--base-column'] if base else [])])}` draws what is missing."
