"""The drawings that the demo is trained on: coloured shapes for the base model, shoes for the fine-tunes. Pillow only."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 64  # pixels of the finished drawing
OVERSAMPLING = 4  # drawn this much larger, then reduced: smooth edges without an anti-aliasing library

COLOURS = {
    "red": (214, 48, 49),
    "orange": (230, 126, 34),
    "yellow": (241, 196, 15),
    "green": (39, 174, 96),
    "blue": (41, 98, 200),
    "purple": (142, 68, 173),
    "black": (30, 30, 30),
    "brown": (121, 85, 61),
    "pink": (240, 128, 160),
}
BACKGROUNDS = {"": (255, 255, 255), "sand": (243, 226, 190), "sky": (190, 220, 247), "mint": (196, 238, 212)}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
SIZES = {"small": (0.17, 0.22), "": (0.26, 0.32), "big": (0.36, 0.41)}  # radius as a share of the side


@dataclass(frozen=True, slots=True)
class Drawing:
    """One captioned picture: 64×64 RGB and the words that describe it."""

    image: Image.Image
    caption: str


def caption_of(thing: str, colour: str, size: str = "", background: str = "") -> str:
    words = ["a", size, colour, thing, f"on a {background} background" if background else ""]
    return " ".join(word for word in words if word)


def draw(rng: random.Random, things: tuple[str, ...] = SHAPES, *, plain: bool = False) -> Drawing:
    """A random drawing of one of `things`; `plain` keeps to middle size on white."""
    thing, colour = rng.choice(things), rng.choice(list(COLOURS))
    size = "" if plain else rng.choice(["", "", "small", "big"])
    background = "" if plain else rng.choice(["", "", "", *[b for b in BACKGROUNDS if b]])
    return draw_thing(thing, colour, rng, size=size, background=background)


def draw_thing(thing: str, colour: str, rng: random.Random, *, size: str = "", background: str = "") -> Drawing:
    """One drawing of the named thing; `rng` moves it a little and varies its size."""
    wide = SIDE * OVERSAMPLING
    backdrop = BACKGROUNDS[background]
    image = Image.new("RGB", (wide, wide), backdrop)
    radius = wide * rng.uniform(*SIZES[size])
    x, y = (wide / 2 + rng.uniform(-0.06, 0.06) * wide for _ in range(2))
    pen = ImageDraw.Draw(image)
    if thing == "casual shoe":
        _shoe(pen, x, y, radius, COLOURS[colour], rng)
    else:
        _shape(pen, thing, x, y, radius, COLOURS[colour], backdrop)
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return Drawing(small, caption_of(thing, colour, size, background))


def _shape(pen, thing, x, y, r, colour, backdrop) -> None:
    if thing == "circle":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=colour)
    elif thing == "ring":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=colour)
        pen.ellipse([x - r * 0.55, y - r * 0.55, x + r * 0.55, y + r * 0.55], fill=backdrop)
    elif thing == "square":
        pen.rectangle([x - r * 0.85, y - r * 0.85, x + r * 0.85, y + r * 0.85], fill=colour)
    elif thing == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r * 0.8), (x + r, y + r * 0.8)], fill=colour)
    elif thing == "star":
        turns = [(-math.pi / 2 + i * math.pi / 5, r if i % 2 == 0 else r * 0.42) for i in range(10)]
        pen.polygon([(x + q * math.cos(a), y + q * math.sin(a)) for a, q in turns], fill=colour)
    elif thing == "heart":
        pen.polygon([_heart_point(i / 60 * 2 * math.pi, x, y, r) for i in range(60)], fill=colour)
    else:
        raise ValueError(f"no drawing is known for {thing!r}; known: {', '.join((*SHAPES, 'casual shoe'))}")


def _heart_point(t: float, x: float, y: float, r: float) -> tuple[float, float]:
    height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return x + r * 0.06 * 16 * math.sin(t) ** 3, y - r * 0.06 * height


def _shoe(pen, x, y, radius, colour, rng) -> None:
    """A shoe from the side: upper, toe, white sole, laces. The shaft's height and the toe's length vary."""
    s = radius * 1.3
    shaft, toe = rng.uniform(0.85, 1.1), rng.uniform(1.85, 2.05)
    left, floor = x - s, y + s * 0.45
    upper = [
        (0.0, 0.0), (0.02, -0.95 * shaft), (0.1, -1.0 * shaft), (0.55, -1.0 * shaft), (0.62, -0.9 * shaft),
        (0.85, -0.58), (1.45, -0.42), (0.95 * toe, -0.25), (toe, -0.08), (toe, 0.0),
    ]  # fmt: skip
    pen.polygon([(left + u * s, floor + v * s) for u, v in upper], fill=colour)
    sole = [left - 0.04 * s, floor - 0.02 * s, left + (toe + 0.06) * s, floor + 0.24 * s]
    pen.rounded_rectangle(sole, radius=0.1 * s, fill=(250, 250, 250), outline=(70, 70, 70), width=OVERSAMPLING)
    for i in range(3):
        a, b = left + (0.66 + 0.24 * i) * s, floor + (-0.78 + 0.13 * i) * s
        pen.line([(a, b), (a + 0.06 * s, b + 0.26 * s)], fill=(250, 250, 250), width=int(0.09 * s))


def write_image_folder(folder: Path, drawings: list[Drawing]) -> None:
    """The `imagefolder` layout of Hugging Face datasets: pictures and a metadata.jsonl with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, drawing in enumerate(drawings):
        name = f"{i:03d}.png"
        drawing.image.save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": drawing.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
