"""What of a value says where something lies: fields by their names, whole texts by their beginnings, and paths within sentences."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cmp.core.runs import Library, Run, plain_text

OWN, NAME, PLACE, EITHER = "own words", "name", "place", "place or sentence"  # kinds of fields; all others are sentences
OWN_WORDS = ("prompt", "negative", "negative prompt")  # what the user wrote is no path, whatever is in it
_WORDS = {
    OWN: "prompts negative_prompt negatives",
    # ids are relative to a runs folder by their making
    NAME: "id ids alias aliases run run_id checkpoint checkpoints best window target targets beside export lora loras",
    EITHER: "base base_model model model_name vae pretrained_model_name_or_path base_model_name_or_path file files",
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words.split()} | dict.fromkeys(OWN_WORDS, OWN)
_KINDS |= dict.fromkeys(("base model", "on disk"), EITHER)
_FOLDERS = re.compile(r"(?:.*[_\- .:])?(?:dir|directory|path|folder|root)s?\Z", re.IGNORECASE)

_WEB = r"(?:git\+)?(?:https?|wss?|hf)://"
_PART = r"[^\s/\\:;,'\"()<>|*?]+"
_SCHEME = r"[A-Za-z][\w+.-]{0,20}:"  # a drive's letter too
_THERE = r"[\w.-]{1,64}@[\w.-]{1,255}:"  # at another machine
_WHOLE = re.compile(rf"(?!{_WEB})(?:[/\\~]|\.\.?[/\\]|{_SCHEME}[/\\]|{_THERE}[^\s]*[/\\])", re.IGNORECASE)
_HUB = re.compile(r"[\w.-]+/[\w.-]+\Z", re.ASCII)
_PATH = re.compile(
    rf"(?P<web>(?<!\w){_WEB}[^\s'\"<>]*)"
    rf"|(?<![\w.:/\\])/(?:{_PART}/)+(?=[^\s/\\])"
    rf"|(?<![\w.@+-])(?:{_THERE}~?|{_SCHEME})[/\\]+(?:{_PART}[/\\]+)*(?=[^\s/\\])"
    rf"|(?<![\w:/\\])\\{{2,}}(?:{_PART}[/\\]+)+(?=[^\s/\\])"
    rf"|(?<![\w./\\])(?:(?:\.\.[/\\]+)+|~[\w.-]*/)(?:{_PART}[/\\]+)*(?=[^\s/\\])",
    re.IGNORECASE,
)
# a text in quotes that begins as a path is one to its end, blanks and all
_QUOTED = re.compile(
    rf"(?P<quote>['\"])(?P<text>(?:/[^/'\"\n]+/|\\\\|\.\.?[/\\]|~[\w.-]*/|{_SCHEME}[/\\]|{_THERE})(?:\\.|(?!(?P=quote))[^\n\\])*)(?P=quote)"
)
_PLAIN = re.compile(r"(?:/[\w.+=-]+){2,}/?\Z")  # what `without_paths` cuts down by itself
_MAYBE = re.compile(r"(?<!\w)/|[\\~]|@[\w.-]+:")  # every place begins so, or has it near its beginning
_LONGEST = 1000  # characters of a place that is remembered


def kind_of(name: object) -> str | None:
    """OWN, NAME, PLACE or EITHER by a field's name, None for a sentence."""
    return _kind_of(name) if isinstance(name, str) and len(name) < 100 else None


@lru_cache(maxsize=4096)
def _kind_of(name: str) -> str | None:
    return _KINDS.get(name.lower()) or (PLACE if _FOLDERS.match(name) else None)


def is_place(text: str) -> bool:
    """Whether a text, taken as one name, says where on some machine something lies. An id, one of the Hub too, and an address do not."""
    return bool(_WHOLE.match(text.lstrip()))


def place_name(text: str) -> str:
    """The last part of a place; an id of the Hub and an address stay as they are."""
    if re.match(_WEB, text.lstrip(), re.IGNORECASE) or (_HUB.match(text) and not is_place(text)):
        return text
    return re.split(r"[/\\]+", text.strip().rstrip("/\\"))[-1].removesuffix(":")


def without_paths(text: str) -> str:
    """A sentence with every path in it cut down to its name; one with blanks only where it is in quotes."""
    return _PATH.sub(lambda found: found["web"] or "", _QUOTED.sub(_name_in_quotes, text))


def may_hold_places(text: str) -> bool:
    """False where nothing in a text looks like a path, which costs little to tell."""
    return bool(_MAYBE.search(text))


def _name_in_quotes(found: re.Match[str]) -> str:
    text = found["text"]
    return f"{found['quote']}{place_name(text)}{found['quote']}" if is_place(text) and place_name(text) else found[0]


# -- what is known of runs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What sentences may say of the runs of a library: `ids` that look like paths and are none, and `places` that runs recorded, by
    their names, which no pattern finds: blanks and commas are in them.
    """

    library: Library | None = None
    ids: re.Pattern[str] | None = None
    recorded: re.Pattern[str] | None = None
    beside: re.Pattern[str] | None = None  # places that fields of the same value hold

    def cut(self, text: str, rest: Callable[[str], str]) -> str:
        """The text with recorded places cut down to their names, its ids as they are, and `rest` made of all else."""
        for pattern in filter(None, (self.beside, self.recorded)):
            text = pattern.sub(lambda found: place_name(found[0]), text)
        return "".join(part if i % 2 else rest(part) for i, part in enumerate(self.ids.split(text))) if self.ids else rest(text)


def told_of(library: Library, around: Iterable[str] = ()) -> Told:
    """Goes through all runs; what can be found by patterns is not remembered. `around` are further folders that nobody should read of."""
    ids = forms_of(run.id for run in library.runs if may_hold_places(run.id))
    pattern = rf"((?<![\w/])(?:{'|'.join(map(re.escape, ids))})(?:[/@][\w.@~%/-]*)?)"
    places = {*around, *(text for run in library.runs for text in _recorded(run))}
    return Told(library, re.compile(pattern) if ids else None, places_pattern(places))


def places_pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Finds those of these places that no pattern finds in a sentence, and what is told to lie in them; None for none."""
    found = forms_of({told for text in texts for told in (text, plain_text(text)) if _is_missed(told)})
    within = r"(?:[/\\][^\s'\":,;<>]*|(?!\w))"
    return re.compile(rf"(?<![\w./\\])(?:{'|'.join(map(re.escape, found))}){within}") if found else None


def _is_missed(text: str) -> bool:
    if not (1 < len(text) <= _LONGEST and is_place(text)) or _PLAIN.match(text):
        return False
    return bool(place_name(text)) and without_paths(f"in {text} there") != f"in {place_name(text)} there"


def _recorded(run: Run) -> Iterator[str]:
    yield run.base_model or ""
    for settings in (run.settings, *run.starts):
        yield from _texts(settings)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _texts(one)
    elif hasattr(value, "source") and hasattr(value, "value"):
        yield from _texts(value.value)


def _forms(text: str) -> set[str]:
    """How a text stands in others: as it is, quoted by Python or by JSON, and in a page."""
    return {text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], html.escape(text)}


def forms_of(places: Iterable[str]) -> list[str]:
    """All of them in every form in which texts hold them, the longest first."""
    return sorted({form for place in places for form in _forms(place)}, key=len, reverse=True)
