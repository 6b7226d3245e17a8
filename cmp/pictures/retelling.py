"""A picture whose pixels stay byte for byte as they are, and whose texts are told otherwise; all else that a file may say is left out.

PNG: https://www.w3.org/TR/png-3/. WebP: https://developers.google.com/speed/webp/docs/riff_container. JPEG: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from PIL import ExifTags, Image

from cmp.core.infotext import LONGEST_TEXT, retold_infotext
from cmp.errors import BadInput, Unreadable
from cmp.pictures.settings import decode_comment, to_exif

Tell = Callable[[Any], Any]
PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
_PIXELS = frozenset(b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD hIST pHYs acTL fcTL fdAT".split())
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_SHAPES = frozenset(b"VP8X,VP8 ,VP8L,ALPH,ANIM,ANMF,ICCP".split(b","))
_EXIF_FLAG, _XMP_FLAG = 8, 4  # of VP8X
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # that ends what a JPEG's scan holds
_HEAD = b"Exif\0\0"
_ORIENTATION, _COMMENT, _DETAILS = ExifTags.Base.Orientation, ExifTags.Base.UserComment, ExifTags.IFD.Exif


def retold(content: bytes, media_type: str, tell: Tell) -> bytes:
    """The picture with `tell` applied to its settings, to A1111's pair by pair; the same object where nothing of it changes.

    A text is one as A1111 writes it. Raises Unreadable for what cannot be taken apart: what it says is not known then.
    """
    if media_type.startswith("text/"):
        return retold_infotext(content.decode("utf-8", "replace"), tell).encode()
    try:
        made = {PNG: _png, JPEG: _jpeg, WEBP: _webp}[media_type](content, tell)
    except (KeyError, ValueError, IndexError, struct.error, zlib.error, OSError, SyntaxError, TypeError, EOFError) as fault:
        raise Unreadable("the picture is damaged, so that it is not known what it says", "Ask its owner for it.") from fault
    return content if made == content else made


def _said(name: str, text: str, tell: Tell) -> str:
    return retold_infotext(text, tell) if name == "parameters" else str(tell(text))


# -- PNG -------------------------------------------------------------------------------------------------------------------


def _png(content: bytes, tell: Tell) -> bytes:
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError
    out, at = [content[:8]], 8
    while at < len(content):
        (size,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(content):
            raise ValueError
        if kind in _PIXELS:
            out.append(content[at:end])
        elif kind in _TEXTS:
            out.append(_text_chunk(kind, content[at + 8 : end - 4], content[at:end], tell))
        elif kind == b"eXIf" and (exif := _exif(content[at + 8 : end - 4], tell)):
            out.append(_chunk(b"eXIf", exif.removeprefix(_HEAD)))
        at = end
        if kind == b"IEND":  # what stands behind it is no part of the picture
            break
    return b"".join(out)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _text_chunk(kind: bytes, data: bytes, whole: bytes, tell: Tell) -> bytes:
    """The chunk as it was where its text stays, else an uncompressed one in UTF-8."""
    name, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        text = rest.decode("latin-1")
    elif kind == b"zTXt":
        text = _inflated(rest[1:]).decode("latin-1")
    else:
        packed, _, _, rest = rest[0], *rest[2:].split(b"\0", 2)
        text = (_inflated(rest) if packed else rest).decode("utf-8")
    if not name.isalnum():  # such as XML:com.adobe.xmp
        return b""
    shown = _said(name.decode("latin-1"), text, tell)
    return whole if shown == text else _chunk(b"iTXt", name + b"\0\0\0\0\0" + shown.encode("utf-8", "replace"))


def _inflated(data: bytes) -> bytes:
    packer = zlib.decompressobj()
    found = packer.decompress(data, 4 * LONGEST_TEXT)
    if packer.unconsumed_tail:
        raise ValueError
    return found


# -- EXIF ------------------------------------------------------------------------------------------------------------------


def _exif(data: bytes, tell: Tell) -> bytes:
    """How the picture is to be turned, and settings as A1111 and ComfyUI write them; b"" where there is neither."""
    exif = Image.Exif()
    exif.load(data)
    comment = exif.get_ifd(_DETAILS).get(_COMMENT)
    text = decode_comment(comment) if isinstance(comment, bytes) else str(comment or "")
    made = Image.Exif()
    if text:
        with suppress(BadInput):  # it was written with half the bytes for a letter
            made.load(to_exif(retold_infotext(text, tell)))
    if _ORIENTATION in exif:
        made[_ORIENTATION] = exif[_ORIENTATION]
    for field in (ExifTags.Base.Model, ExifTags.Base.Make):
        key, colon, graph = str(exif.get(field) or "").rstrip("\0").partition(":")
        if colon and key.lower() in ("prompt", "workflow"):
            made[field] = f"{key}:{tell(graph)}"
    return made.tobytes() if len(made) else b""


# -- WebP ------------------------------------------------------------------------------------------------------------------


def _webp(content: bytes, tell: Tell) -> bytes:
    parts = list(_riff(content))
    kept = [(kind, data) for kind, data in parts if kind in _SHAPES]
    exif = next((_exif(data, tell) for kind, data in parts if kind == b"EXIF"), b"")
    flags = _EXIF_FLAG if exif else 0
    kept = [(k, bytes([d[0] & ~(_EXIF_FLAG | _XMP_FLAG) | flags]) + d[1:] if k == b"VP8X" else d) for k, d in kept]
    kept += [(b"EXIF", exif.removeprefix(_HEAD))] if exif else []
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in kept)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _riff(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        raise ValueError
    at, end = 12, 8 + struct.unpack("<I", content[4:8])[0]
    while at + 8 <= min(end, len(content)):
        (size,) = struct.unpack("<I", content[at + 4 : at + 8])
        yield content[at : at + 4], content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


# -- JPEG ------------------------------------------------------------------------------------------------------------------


def _jpeg(content: bytes, tell: Tell) -> bytes:
    """Segments that the decoder needs: the tables and scans, JFIF's, ICC's and Adobe's own; EXIF is made anew."""
    if content[:2] != b"\xff\xd8":
        raise ValueError
    out, at = [content[:2]], 2
    while content[at + 1] != 0xD9:
        if content[at] != 0xFF:
            raise ValueError
        if content[at + 1] == 0xFF:  # fill bytes
            at += 1
            continue
        kind, (size,) = content[at + 1], struct.unpack(">H", content[at + 2 : at + 4])
        end, data = at + 2 + size, content[at + 4 : at + 2 + size]
        if kind == 0xDA:
            found = _MARKER.search(content, end)
            end = found.end() - 2 if found else len(content)
            out.append(content[at:end])
            if not found:  # cut off, as its pixels are
                return b"".join(out)
        elif _is_needed(kind, data):
            out.append(content[at:end])
        elif kind == 0xE1 and data.startswith(_HEAD) and (exif := _exif(data, tell)):
            out.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
        at = end
    return b"".join([*out, b"\xff\xd9"])


def _is_needed(kind: int, data: bytes) -> bool:
    named: Mapping[int, bytes] = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
    return data.startswith(named[kind]) if kind in named else not (0xE0 <= kind <= 0xEF or kind == 0xFE)
