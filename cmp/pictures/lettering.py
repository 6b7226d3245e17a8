"""Text on pictures: lines that are broken where there is no more room, in a font that has their letters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

from cmp.core.runs import plain_text

INK, FAINT, PAPER, RULE, RED, PALE = (24, 28, 36), (110, 116, 128), (255, 255, 255), (205, 208, 214), (180, 35, 24), (246, 247, 249)
MOST_LINES = 4  # of one text
_LEADING = 4  # pixels between lines
# what systems have for scripts that the first one lacks; looked for by name where the system keeps its fonts
_OTHERS = (
    "NotoSansCJK-Regular.ttc", "msgothic.ttc", "msyh.ttc", "malgun.ttf", "Hiragino Sans GB.ttc", "PingFang.ttc", "AppleSDGothicNeo.ttc",
    "Arial Unicode.ttf", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc", "Nirmala.ttf", "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf", "NotoSansSymbols2-Regular.ttf", "seguiemj.ttf",
)  # fmt: skip

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    size: int = 12
    colour: Colour = INK

    @property
    def height(self) -> int:
        return self.size + _LEADING


@lru_cache(64)
def _load(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(1)
def _known() -> tuple[tuple[str, frozenset[int]], ...]:
    """The fonts that are here, each with the letters it has."""
    usual = str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    found = [str(font.path) for name in _OTHERS if (font := _load(name, 12))]
    return tuple((path, frozenset(FT2Font(path).get_charmap())) for path in (usual, *found))


def font_for(text: str, size: int) -> Font:
    """The font that lacks the fewest letters of a text."""
    wanted = {ord(letter) for letter in text if not letter.isspace()}
    name, _ = min(_known(), key=lambda font: len(wanted - font[1]))
    font = _load(name, size)
    assert font is not None  # it has been opened before
    return font


def clean(text: str) -> str:
    """A text without what would break or turn a line."""
    return "".join(letter if letter.isprintable() else " " for letter in plain_text(text))


def wrapped(lines: Sequence[Line], width: int, most: int = MOST_LINES) -> list[Line]:
    """The lines broken so that none is wider; of one text at most so many, the last of which then ends in …"""
    out: list[Line] = []
    for line in lines:
        text = clean(line.text)
        broken = _broken(text, font_for(text[:4000], line.size), max(width, 24), most)
        if len(broken) > most:
            broken = [*broken[: most - 1], f"{broken[most - 1]} …"]
        out += [Line(text, line.size, line.colour) for text in broken]
    return out


def height_of(lines: Sequence[Line]) -> int:
    return sum(line.height for line in lines)


def write(pen: ImageDraw.ImageDraw, lines: Sequence[Line], x: int, y: int) -> None:
    """The lines one below the other; texts must be clean."""
    for line in lines:
        pen.text((x, y), line.text, line.colour, font_for(line.text, line.size))
        y += line.height


def _broken(text: str, font: Font, width: int, most: int) -> list[str]:
    """The words in lines no wider than that, and words that are wider broken; a line more than is shown is enough."""
    lines = [""]
    for word in text[: (most + 2) * width].split():  # no letter is narrower than a pixel
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        while word and len(lines) <= most + 1:
            fits = _fitting(word, font, width)
            lines[-1], word = word[:fits], word[fits:]
            lines += [""] if word else []
        if len(lines) > most + 1:
            break
    return lines


def _fitting(word: str, font: Font, width: int) -> int:
    """How many letters of a word are no wider than that; at least one."""
    counts = range(1, min(len(word), width) + 1)
    return max(1, bisect_left(counts, True, key=lambda count: font.getlength(word[:count]) > width))
