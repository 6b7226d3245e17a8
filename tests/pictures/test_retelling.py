"""Pictures whose texts are told otherwise: pixels stay byte for byte, what nobody knows goes, and what is damaged is not handed on."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from cmp.errors import Unreadable
from cmp.pictures.retelling import JPEG, PNG, WEBP, retold
from cmp.pictures.settings import read_settings, to_exif

TEXT = "a shoe\nSteps: 3, Seed: 1, Model: secret, Size: 8x8"
KINDS = {PNG: "PNG", JPEG: "JPEG", WEBP: "WEBP"}
NOISE = Image.effect_noise((40, 24), 60).convert("RGB")


def tell(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: tell(told) for name, told in value.items()}
    return value.replace("secret", "told")


def written(kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    NOISE.save(out, KINDS[kind], **more)
    return out.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_retold_and_pixels_and_turning_stay(kind: str) -> None:
    exif = Image.Exif()
    exif.load(to_exif(TEXT))
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "secret"
    content = written(kind, exif=exif, icc_profile=b"p" * 200)
    made = retold(content, kind, tell)
    assert b"secret" not in made and "secret".encode("utf-16-be") not in made and made != content
    before, after = opened(content), opened(made)
    assert before.tobytes() == after.tobytes() and after.getexif()[ExifTags.Base.Orientation] == 6
    assert read_settings(made).model == "told" and after.info["icc_profile"] == b"p" * 200
    assert retold(made, kind, tell) == made


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_told_as_it_is_is_the_same_file(kind: str) -> None:
    content = written(kind)
    assert retold(content, kind, tell) is content


@pytest.mark.parametrize("more", [{"lossless": True}, {"save_all": True, "append_images": [NOISE.rotate(90)], "duration": 100}])
def test_webp_of_every_form_keeps_its_pictures(more: dict[str, Any]) -> None:
    content = written(WEBP, exif=to_exif(TEXT), xmp=b"<secret/>", **more)
    made = retold(content, WEBP, tell)
    assert b"secret" not in made and getattr(opened(made), "n_frames", 1) == getattr(opened(content), "n_frames", 1)
    assert opened(made).tobytes() == opened(content).tobytes() and "xmp" not in opened(made).info


def test_a_progressive_jpeg_keeps_every_scan_and_loses_what_stands_behind() -> None:
    content = written(JPEG, progressive=True, comment=b"secret", xmp=b"<secret/>") + b"secret"
    made = retold(content, JPEG, tell)
    assert b"secret" not in made and opened(made).tobytes() == opened(content).tobytes()


def test_a_png_keeps_no_text_that_is_not_known_to_be_one() -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Raw profile type exif", "secret")
    chunks.add_itxt("XML:com.adobe.xmp", "<secret/>")
    chunks.add_text("Comment", "a secret", zip=True)
    chunks.add(b"prVt", b"secret")
    made = retold(written(PNG, pnginfo=chunks) + b"secret", PNG, tell)
    assert b"secret" not in made and opened(made).info == {"Comment": "a told"} and opened(made).tobytes() == NOISE.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [lambda c: c[:20], lambda c: b"x" + c, lambda c: c[:2], lambda c: b""], ids=["short", "shifted", "head", "none"]
)
def test_a_picture_that_cannot_be_taken_apart_is_not_handed_on(kind: str, change: Any) -> None:
    try:
        made = retold(change(written(kind, exif=to_exif(TEXT))), kind, tell)
    except Unreadable:
        return
    assert b"secret" not in made and "secret".encode("utf-16-be") not in made
