"""Settings inside pictures: written as A1111 writes them, and read whoever wrote them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from cmp.core.a1111 import read_infotext
from cmp.core.comfy import read_comfy
from cmp.core.infotext import LONGEST_TEXT, parse_infotext
from cmp.core.restored import Restored, read_any, read_record
from cmp.errors import BadInput, NotFound, Unreadable, why_not

LARGEST_PICTURE = 64_000_000  # pixels of a foreign picture that is still opened
LONGEST_EXIF = 65_000  # bytes; JPEG holds no more in one segment
_COMMENT, _DETAILS = ExifTags.Base.UserComment, ExifTags.IFD.Exif
_UNICODE, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"
_READERS = {"cmp": read_record, "parameters": read_infotext, "prompt": read_comfy}


def to_exif(infotext: str) -> bytes:
    """EXIF with the text as UserComment, in the encoding that A1111 writes: UTF-16, the higher byte first. Raises BadInput if too long."""
    comment = _UNICODE + infotext.encode("utf-16-be", "replace")
    if len(comment) > LONGEST_EXIF:
        raise BadInput(f"the settings have {len(infotext)} characters, more than JPEG and WebP carry", "Write a PNG.")
    exif = Image.Exif()
    exif.get_ifd(_DETAILS)[_COMMENT] = comment
    return exif.tobytes()


def read_settings(source: Path | bytes) -> Restored:
    """The settings in a PNG, JPEG or WebP: our own record, else A1111's text, else ComfyUI's graph.

    Raises NotFound where there are none, Unreadable where the picture or all that it says is damaged. Pixels are not decoded.
    """
    name = str(source) if isinstance(source, Path) else "the picture"
    texts = _texts(source, name)
    found = read_any(texts, _READERS)
    if found is not None:
        return found
    if "workflow" in texts:
        raise Unreadable(
            f"{name} carries ComfyUI's workflow only, which does not say what was drawn with",
            "The API graph is needed, which ComfyUI's SaveImage node writes beside it as `prompt`.",
        )
    raise NotFound(f"{name} carries no settings", "Editors, messengers and screenshots leave them out; take the file as it was drawn.")


def infotext_in(source: Path) -> str:
    """The settings in a picture as A1111 tells them, to be pasted there; raises NotFound where it has none, Unreadable."""
    text = _texts(source, source.name).get("parameters")
    if not text:
        raise NotFound(f"{source.name} carries no settings", "Only pictures that were drawn here or by A1111 do.")
    return text


def _texts(source: Path | bytes, name: str) -> dict[str, str]:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=("PNG", "JPEG", "WEBP")) as image:
            check_size(image, name)
            chunks = {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
            return _bounded(chunks | _exif_texts(image), name)
    except FileNotFoundError as fault:
        raise NotFound(f"there is no picture {name}", "Check the path.") from fault
    except UnidentifiedImageError as fault:
        raise Unreadable(f"{name} is no PNG, JPEG or WebP", "Give a picture as it was drawn.") from fault
    except Image.DecompressionBombError as fault:
        raise Unreadable(f"{name} has more pixels than are opened", f"At most {LARGEST_PICTURE:,} are.") from fault
    except (OSError, ValueError, SyntaxError) as fault:
        why = why_not(fault) if isinstance(fault, OSError) and fault.errno else "it is damaged or cut off"
        raise Unreadable(f"{name} cannot be read: {why}", "PNG, JPEG and WebP are read.") from fault
    except (struct.error, zlib.error, KeyError, TypeError, IndexError, EOFError, OverflowError, AttributeError) as fault:
        raise Unreadable(f"the settings in {name} are damaged", "Take the file as it was drawn.") from fault


def check_size(image: Image.Image, name: object) -> None:
    """Raises Unreadable for a picture that would fill the memory."""
    if image.width * image.height > LARGEST_PICTURE:
        raise Unreadable(f"{name} has {image.width} × {image.height} pixels", "Pictures of that size are not opened.")


def _bounded(texts: dict[str, str], name: str) -> dict[str, str]:
    for key in (*_READERS, "workflow"):
        if len(texts.get(key, "")) > LONGEST_TEXT:
            raise Unreadable(f"{key!r} in {name} has {len(texts[key])} characters", f"At most {LONGEST_TEXT} are read.")
    return texts


def _exif_texts(image: Image.Image) -> dict[str, str]:
    """A1111's text in UserComment, and what ComfyUI's nodes for WebP write as `prompt:{…}` into two further fields."""
    exif = image.getexif()
    found = {}
    comment = exif.get_ifd(_DETAILS).get(_COMMENT)
    text = decode_comment(comment) if isinstance(comment, bytes) else str(comment or "")
    if parse_infotext(text).pairs:  # cameras and screenshots have comments too
        found["parameters"] = text
    for field in (ExifTags.Base.Model, ExifTags.Base.Make):
        key, colon, text = str(exif.get(field) or "").partition(":")
        if colon and key.lower() in ("prompt", "workflow"):
            found[key.lower()] = text.rstrip("\0")
    return found


def decode_comment(comment: bytes) -> str:
    """The text of a UserComment. The standard leaves the order of UNICODE's bytes open, so that the zeros of plain letters decide."""
    if comment.startswith(_UNICODE):
        body = comment[len(_UNICODE) :]
        little = body.startswith(b"\xff\xfe") or body[1::2].count(0) > body[0::2].count(0)
        return body.decode("utf-16-le" if little else "utf-16-be", "replace").lstrip("\ufeff").rstrip("\0")
    return comment.removeprefix(_ASCII).removeprefix(b"\0" * 8).decode("utf-8", "replace").rstrip("\0")
