"""Settings in real picture files: in all three formats, from all three programs, and from files that mean harm."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from cmp.core.grids import Cell, Prompt, Sampling, Tile
from cmp.core.infotext import to_infotext
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput, CmpError, NotFound, Unreadable
from cmp.pictures.files import save_picture, save_png
from cmp.pictures.settings import decode_comment, read_settings, to_exif

CELL = Cell(Checkpoint("run", "500", Path("/r"), "x", "lora", step=500), Prompt("ein Schuh, 靴", "bad"), 7, 0.5, Sampling(20, 4.0))
TEXT = to_infotext(CELL, (8, 8), "tiny-sd", "d" * 64, "0.1")
PICTURE = Image.new("RGB", (8, 8), "red")


def _png(**chunks: str) -> bytes:
    texts = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        texts.add_itxt(name, text)
    out = io.BytesIO()
    PICTURE.save(out, "PNG", pnginfo=texts)
    return out.getvalue()


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.JPEG", "x.webp"])
def test_a_picture_of_every_format_carries_its_settings(tmp_path: Path, name: str) -> None:
    save_picture(PICTURE, tmp_path / "new" / name, TEXT)
    found = read_settings(tmp_path / "new" / name)
    assert (found.prompt, found.negative, found.seed, found.strength) == ("ein Schuh, 靴", "bad", 7, 0.5)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name], "no draft is left"


def test_our_own_record_comes_before_the_text(tmp_path: Path) -> None:
    save_png(PICTURE, tmp_path / "x.png", TEXT, Tile(CELL, "k").as_json())
    assert read_settings(tmp_path / "x.png").as_sampling() == CELL.sampling, "the text would say a size"
    assert read_settings((tmp_path / "x.png").read_bytes()) == read_settings(tmp_path / "x.png")
    found = read_settings(_png(cmp="{", parameters=TEXT))
    assert found.seed == 7 and any("our own record" in told for told in found.not_restored)


def test_the_comment_is_encoded_as_a1111_does() -> None:
    exif = to_exif("a靴")
    assert b"UNICODE\0\0a\x97\x74" in exif


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"UNICODE\0\0a\0b", "ab"), (b"UNICODE\0a\0b\0", "ab"), (b"UNICODE\0\xff\xfea\0", "a"), (b"UNICODE\0\xfe\xff\0a", "a"),
        (b"ASCII\0\0\0ab\0", "ab"), (b"\0" * 8 + b"ab", "ab"), (b"ab", "ab"), (b"UNICODE\0a", "\ufffd"), (b"", ""), (b"\xff", "\ufffd"),
    ],
)  # fmt: skip
def test_comments_of_other_programs_are_decoded(comment: bytes, text: str) -> None:
    assert decode_comment(comment) == text


def test_comfyuis_graph_is_read_from_png_and_from_the_fields_it_uses_in_webp() -> None:
    graph = {"3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 9, "sampler_name": "euler", "scheduler": "normal"}}}
    text = json.dumps(graph)
    assert read_settings(_png(prompt=text, workflow="{}")).seed == 5
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{text}"
    out = io.BytesIO()
    PICTURE.save(out, "WEBP", exif=exif)
    assert read_settings(out.getvalue()).steps == 9


def test_a_workflow_alone_is_told_to_be_no_graph() -> None:
    with pytest.raises(Unreadable, match="workflow only"):
        read_settings(_png(workflow='{"nodes": []}'))


def test_a_picture_without_settings_says_so() -> None:
    for content in (_png(), _png(Comment="hello", Software="x")):
        with pytest.raises(NotFound, match="no settings"):
            read_settings(content)


def test_a_cameras_comment_is_no_prompt() -> None:
    out = io.BytesIO()
    PICTURE.save(out, "JPEG", exif=to_exif("Screenshot"))
    with pytest.raises(NotFound, match="no settings"):
        read_settings(out.getvalue())


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.png"):
        read_settings(tmp_path / "gone.png")


# files that mean harm


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_chunk(kind: bytes, body: bytes) -> bytes:
    plain = _png()
    return plain[:33] + _chunk(kind, body) + plain[33:]  # behind the header


def _huge() -> bytes:
    plain = _png()
    header = struct.pack(">II", 60_000, 60_000) + plain[24:29]
    return plain[:8] + _chunk(b"IHDR", header) + plain[33:]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x89PNG\r\n\x1a\n", _png()[:40], b"RIFF\x10\0\0\0WEBPVP8X", b"\xff\xd8\xff\xe1\0\x10Exif\0\0MM\0*\0\0\0\x08",
        b"GIF89a\x01\0\x01\0\0\0\0;", b'<svg xmlns="http://www.w3.org/2000/svg"/>', b"%PDF-1.4", _huge(),
        _with_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000, 9)),
        _with_chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(b"a" * 50_000_000, 9)),
        _with_chunk(b"tEXt", b"parameters\0" + b"a" * 1_000_001),
        _with_chunk(b"tEXt", b"prompt\0" + b"[" * 900_000),
    ],
)  # fmt: skip
def test_harmful_files_are_refused_in_words(content: bytes) -> None:
    with pytest.raises(CmpError) as fault:
        read_settings(content)
    assert fault.value.message and fault.value.hint


@given(st.data())
def test_a_file_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    out = io.BytesIO()
    PICTURE.save(out, kind, **({} if kind == "PNG" else {"exif": to_exif(TEXT)}))
    content = bytearray(_png(cmp="{}", parameters=TEXT) if kind == "PNG" else out.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(CmpError):
        read_settings(bytes(content[:cut]))


def test_what_a_format_cannot_hold_is_refused_before_a_file_appears(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x\.bmp"):
        save_picture(PICTURE, tmp_path / "x.bmp", TEXT)
    with pytest.raises(BadInput, match="characters"):
        save_picture(PICTURE, tmp_path / "x.jpg", "a" * 40_000)
    with pytest.raises(BadInput, match="WEBP"):
        save_picture(Image.new("L", (16_384, 1)), tmp_path / "x.webp", TEXT)
    assert list(tmp_path.iterdir()) == []
