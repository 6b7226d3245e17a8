"""Repositories and buckets of the Hugging Face Hub as they are listed and read: names, sizes, and ranges of bytes.

It is asked over plain HTTP and not with the hub's own client, which this program keeps offline so that no library fetches anything
unasked. Endpoint and token are the client's. API: https://huggingface.co/docs/hub/api
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from cmp.errors import BadInput, NotFound, Unreadable, why_not

PREFIX = "hf://"
_PATIENCE = 30.0  # seconds without a byte
_LONGEST_ANSWER = 64_000_000  # bytes of a page of names
_PLACE = re.compile(
    r"hf://(?:(datasets|spaces|models|buckets)/)?([\w.-]{1,96})/([\w.-]{1,96})(?:@([\w./-]{1,200}?|[0-9a-f]{40}))?(?:/(.*))?\Z", re.ASCII
)
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


@dataclass(frozen=True, slots=True)
class HubPlace:
    """What an address `hf://[KIND/]OWNER/NAME[@REVISION][/FOLDER]` means."""

    kind: str
    owner: str
    name: str
    revision: str = "main"
    folder: str = ""

    @property
    def repo(self) -> str:
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        kind = "" if self.kind == "models" else f"{self.kind}/"
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}{kind}{self.repo}{revision}{f'/{self.folder}' if self.folder else ''}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub lists it. `sha256` is told of large ones only; `blob` is what git, or a bucket, calls the content of others."""

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None


def read_place(address: str) -> HubPlace:
    """The place that an address names; raises BadInput."""
    found = _PLACE.match(address)
    folder = (found[5] or "").strip("/") if found else ""
    if not found or (folder and not is_plain(folder)) or {found[2], found[3]} & {".", ".."}:
        raise BadInput(
            f"{address[:200]!r} is no place on the Hub", "Write hf://OWNER/NAME, hf://datasets/OWNER/NAME or hf://buckets/OWNER/NAME."
        )
    return HubPlace(found[1] or "models", found[2], found[3], found[4] or "main", folder)


def is_plain(path: str) -> bool:
    """Whether a path from elsewhere stays below where it is put, under names that any file may have."""
    parts = path.split("/")
    return all(part and part not in (".", "..") and len(part.encode()) < 200 and not re.search(r"[\\\x00-\x1f:]", part) for part in parts)


class _WithoutToken(HTTPRedirectHandler):
    """Follows to where the bytes lie, and shows the token to nobody but the hub itself."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str) -> Request | None:
        further = super().redirect_request(req, fp, code, msg, headers, newurl)
        if further and urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            further.headers.pop("Authorization", None)
        return further


class Hub:
    """The hub at the client's endpoint. Safe to use from several threads."""

    def __init__(self, endpoint: str | None = None) -> None:
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers

        self.endpoint = endpoint or constants.ENDPOINT
        self._headers: dict[str, str] = build_hf_headers(library_name="cmp")
        self._opener: OpenerDirector = build_opener(_WithoutToken())

    def commit(self, place: HubPlace) -> str:
        """The commit that a place stands at now. A bucket has none: a digest of its listing stands for it."""
        if place.kind == "buckets":
            listed = json.dumps(sorted((file.path, file.size, file.sha256, file.blob) for file in self.files(place, "")))
            return hashlib.sha256(listed.encode()).hexdigest()[:40]
        told = self._json(f"{self.endpoint}/api/{place.kind}/{place.repo}/revision/{quote(place.revision, safe='')}", place)[0]
        commit = told.get("sha") if isinstance(told, dict) else None
        if not (isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit)):
            raise Unreadable(f"the Hub tells no commit of {place}", "Try again later.")
        return commit

    def files(self, place: HubPlace, commit: str) -> tuple[HubFile, ...]:
        """The files of a place at a commit, by names and sizes alone."""
        if place.kind == "buckets":
            return tuple(self._files(f"{self.endpoint}/api/buckets/{place.repo}/tree?recursive=true", place))
        inside = f"/{quote(place.folder)}" if place.folder else ""
        return tuple(self._files(f"{self.endpoint}/api/{place.kind}/{place.repo}/tree/{commit}{inside}?recursive=true", place))

    def read(self, place: HubPlace, commit: str, path: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file as it was at a commit; raises Unreadable if anything else is answered."""
        if start >= end:
            return b""
        with self._open(self._address(place, commit, path), place, {"Range": f"bytes={start}-{end - 1}"}) as answer:
            whole = answer.headers.get("Content-Range", "")
            if answer.status != 206 or not whole.startswith(f"bytes {start}-{end - 1}/"):
                raise Unreadable(f"the Hub does not give a part of {place}/{path}", "Whole files are never fetched for a part of them.")
            found: bytes = _received(answer, end - start, f"{place}/{path}")
        if len(found) != end - start:
            raise Unreadable(f"{len(found):,} of {end - start:,} bytes of {place}/{path} came", "Try again later.")
        return found

    def _address(self, place: HubPlace, commit: str, path: str) -> str:
        if place.kind == "buckets":
            return f"{self.endpoint}/buckets/{place.repo}/resolve/{quote(path, safe='')}"
        kind = "" if place.kind == "models" else f"{place.kind}/"
        return f"{self.endpoint}/{kind}{place.repo}/resolve/{commit}/{quote(path)}"

    def _files(self, address: str, place: HubPlace) -> Iterator[HubFile]:
        page: str | None = address
        while page:
            listed, page = self._json(page, place)
            for item in listed if isinstance(listed, list) else ():
                file = _file(item)
                if file and (not place.folder or file.path.startswith(f"{place.folder}/")):
                    yield file

    def _json(self, address: str, place: HubPlace) -> tuple[Any, str | None]:
        """What is answered, and where it goes on: on the same server only."""
        with self._open(address, place, {}) as answer:
            raw, link = _received(answer, _LONGEST_ANSWER, str(place)), _NEXT.search(answer.headers.get("Link", ""))
        try:
            told = json.loads(raw)
        except (ValueError, RecursionError) as fault:
            raise Unreadable(f"the Hub's answer about {place} is no JSON", "Check HF_ENDPOINT.") from fault
        further = link[1] if link and link[1].startswith(f"{self.endpoint}/") and link[1] != address else None
        return told, further

    def _open(self, address: str, place: HubPlace, more: Mapping[str, str]) -> Any:
        try:
            return self._opener.open(Request(address, headers={**self._headers, **more}), timeout=_PATIENCE)
        except HTTPError as fault:
            if fault.code in (401, 403, 404):
                hint = "Check the name; private ones need a token: `hf auth login`, or HF_TOKEN."
                raise NotFound(f"the Hub shows nothing at {place} ({fault.code})", hint) from fault
            raise Unreadable(f"the Hub answers {fault.code} about {place}", "Try again later.") from fault
        except (OSError, HTTPException, ValueError) as fault:
            raise _out_of_reach(fault, self.endpoint) from fault


def _received(answer: Any, most: int, what: str) -> bytes:
    """The body, at most so many bytes of it."""
    try:
        found: bytes = answer.read(most)
        return found
    except (OSError, HTTPException) as fault:
        raise _out_of_reach(fault, what) from fault


def _out_of_reach(fault: Exception, what: str) -> Unreadable:
    reason = getattr(fault, "reason", fault)
    told = why_not(reason) if isinstance(reason, OSError) else str(reason)
    return Unreadable(f"cannot read {what}: {told}", "Check the network; what was fetched before is shown without it.")


def _file(item: object) -> HubFile | None:
    """A file of a listing; None for folders and for what no file may be called."""
    if not isinstance(item, dict) or item.get("type") != "file":
        return None
    path, size, large = item.get("path"), item.get("size"), item.get("lfs")
    if not (isinstance(path, str) and is_plain(path) and isinstance(size, int) and size >= 0):
        return None
    told = large.get("oid") or large.get("sha256") if isinstance(large, dict) else None
    other = item.get("xetHash") or item.get("oid")
    return HubFile(path, size, told if isinstance(told, str) else None, other if isinstance(other, str) else None)
