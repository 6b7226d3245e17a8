"""Which checkpoints an axis text chooses."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cmp.core.axes import Part, match_name, parse_whole_axis, split_axis
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput

Best = Callable[[int], Sequence[Checkpoint]]  # the so many best of a run; raises BadInput where nothing says which they are

_WORD = re.compile(r"(all|last|best)(?:\s*[0-9]{1,9})?\Z", re.ASCII | re.IGNORECASE)
_COUNTED = re.compile(r"(last|best)(?:\s*([0-9]{1,9}))?\Z", re.ASCII | re.IGNORECASE)


def choose_checkpoints(text: str, checkpoints: Sequence[Checkpoint], best: Best | None = None) -> tuple[Checkpoint, ...]:
    """The checkpoints an axis text chooses, in their own order: `all`, `last 4`, `best`, `best 3`, keys such as `final` whatever their
    case and spaces, steps in any form of parse_axis, and what SKIP: leaves out.

    Checkpoints with a flaw are never among `all`, `last` and `best`; asked for by name they are, so that the reason is heard.
    """
    chosen: dict[bool, list[Checkpoint]] = {False: [], True: []}
    steps: dict[bool, list[str]] = {False: [], True: []}
    for part in split_axis(text, "checkpoints"):
        named = _named(part, checkpoints, best)
        if named is None:
            steps[part.skipped].append(part.text)
        else:
            chosen[part.skipped] += named
    for skipped, parts in steps.items():
        chosen[skipped] += _at_steps(", ".join(parts), checkpoints) if parts else []
    kept = [c for c in dict.fromkeys(chosen[False]) if c not in chosen[True]]
    if not kept and chosen[True]:
        raise BadInput(f"checkpoints {text!r} leave none", "Not all can be left out with SKIP:.")
    return tuple(sorted(kept, key=lambda c: c.sort_key))


def passed_over(text: str, checkpoints: Sequence[Checkpoint], chosen: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Those that `all`, `last` or `best` do not choose because of a flaw, but for what SKIP: leaves out; of `last` the later ones."""
    parts = split_axis(text, "checkpoints")
    words = {found[1].casefold() for part in parts if not part.skipped and (found := _WORD.match(part.text))}
    skipped = [part for part in parts if part.skipped and not _WORD.match(part.text)]
    left_out = [c for part in skipped for c in _named(part, checkpoints, None) or _at_steps(part.text, checkpoints)]
    flawed = [c for c in checkpoints if c.flaw is not None and c not in chosen and c not in left_out]
    if words == {"last"} and chosen:
        return tuple(c for c in flawed if c.sort_key > min(one.sort_key for one in chosen))
    return tuple(flawed) if words else ()


def _named(part: Part, checkpoints: Sequence[Checkpoint], best: Best | None) -> Sequence[Checkpoint] | None:
    """What a word chooses; None if it is no word but steps."""
    usable = [c for c in checkpoints if c.flaw is None]
    keys = {key: c for c in checkpoints for key in (c.key, *(alias.rpartition("@")[2] for alias in c.aliases))}
    if part.text in keys and not part.text.isdigit():
        return [keys[part.text]]
    if part.text.casefold() == "all":
        return usable
    if found := _COUNTED.match(part.text):
        return _counted(found[1].casefold(), int(found[2]) if found[2] else 1, usable, best)
    if re.search(r"[^\W\d_]", part.text):
        return [keys[match_name(part.text, "the checkpoint", tuple(keys))]]
    return None


def _counted(word: str, count: int, usable: Sequence[Checkpoint], best: Best | None) -> Sequence[Checkpoint]:
    if count < 1:
        raise BadInput(f"checkpoints '{word} {count}' chooses none", f"Use {word} 1 or more.")
    if word == "last":
        return usable[-count:]
    if best is None:
        raise BadInput(f"checkpoints '{word}' has no meaning here", "Name their steps.")
    return [c for c in best(count) if c.flaw is None]


def _at_steps(text: str, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    steps = {c.step: c for c in reversed(checkpoints) if c.step is not None}
    for step in (wanted := parse_whole_axis(text, "checkpoints")):
        if step not in steps:
            raise BadInput(f"there is no checkpoint at step {step}", f"There are: {', '.join(c.key for c in checkpoints) or 'none'}.")
    return [steps[step] for step in wanted]
