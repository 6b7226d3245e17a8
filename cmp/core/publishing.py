"""What is shared: a page or a model as files in a folder, which a plan lists one by one before anything is written anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cmp.core.runs import path_text
from cmp.errors import BadInput

PAGE, MODEL = "page", "model"
REPOSITORIES = {PAGE: "space", MODEL: "model"}  # what the Hub calls them
README, INDEX, WEIGHTS = "README.md", "index.html", "pytorch_lora_weights.safetensors"
IMAGES = "images"
PICTURE = "a picture"  # how a file is told that is one of many
# what a README of ours ends with: by it a folder or a repository is known as written by this program
MARK = "<!-- written by cmp share -->"
# how pictures are called that a later share may take away again: by a digest of what they hold
OWN_IMAGE = re.compile(rf"{IMAGES}/[0-9a-f]{{64}}\.(?:webp|png|svg)\Z", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?/[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?\Z", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,59}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asked for. `space` or `model` is a repository of the Hub; with `output` it is written there and nothing is uploaded.

    `png`: pictures as large as they were drawn, as PNG. `license` is one of the Hub's identifiers, None for none. `public` is how a
    repository is made that is not there yet.
    """

    output: Path | None = None
    space: str | None = None
    model: str | None = None
    png: bool = False
    license: str | None = None
    force: bool = False
    public: bool = False

    def __post_init__(self) -> None:
        if self.space and self.model:
            raise BadInput("--space and --model were both given", "Use one of them at a time.")
        if not (self.output or self.space or self.model):
            raise BadInput("it was not said where to", "Give --output DIR, --space OWNER/NAME or --model OWNER/NAME.")
        name = self.space or self.model
        if name is not None and (not _REPOSITORY.match(name) or "--" in name or ".." in name):
            raise BadInput(f"the repository is {name!r}", "Write OWNER/NAME in letters, digits, -, _ and .")
        if self.license is not None and not _LICENSE.match(self.license):
            raise BadInput(f"the license is {self.license!r}", "Use one of the Hub's identifiers, such as creativeml-openrail-m.")
        if self.license is not None and not self.model:
            raise BadInput("a license was given for a page", "It goes with --model.")

    @property
    def kind(self) -> str:
        return MODEL if self.model else PAGE

    @property
    def repository(self) -> str | None:
        """Where it is uploaded to; None where it is written to a folder."""
        return None if self.output else self.space or self.model


@dataclass(frozen=True, slots=True)
class SharedFile:
    """One file by its path within the folder, and in words what it is."""

    path: str
    bytes: int
    what: str


@dataclass(frozen=True, slots=True)
class SharePlan:
    """What sharing would write: `draft` is a folder of ours with these very files. `notes` say what is not shown."""

    run: str
    title: str
    wanted: Wanted
    draft: Path
    files: tuple[SharedFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def goes_to(self) -> str:
        repository = self.wanted.repository
        if repository is None:
            return path_text(self.wanted.output) if self.wanted.output else ""
        return f"{REPOSITORIES[self.wanted.kind]} {repository}"

    def as_json(self, done: str | None) -> dict[str, object]:
        """`done` says where it is now, None for a plan."""
        files = [{"path": file.path, "bytes": file.bytes, "what": file.what} for file in self.files]
        told = {"run": self.run, "kind": self.wanted.kind, "goes_to": self.goes_to, "title": self.title, "files": files}
        return told | {"bytes": self.bytes, "notes": list(self.notes), "done": done is not None, "at": done}
