"""Models that look at pictures, found on this disk, and what they saw, kept in CMP_HOME: it is the same as long as both files are."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cmp.core.curves import Floats
from cmp.disk.folders import hash_file
from cmp.disk.json_table import read_json_table
from cmp.disk.replacing import keep_if_possible
from cmp.disk.store import Store
from cmp.disk.tensors import identify
from cmp.errors import NotFound, Refused, Unreadable

_KEPT = np.dtype("<f2")
_WHOLE = 0.01  # by how much the length of a row may miss 1: more is no row of ours


@dataclass(frozen=True, slots=True)
class SeeingModel:
    """The folder of a CLIP model or an image encoder: `kind` is its config's model_type, `digest` that of all files that it is read from.

    `pickled` says that its weights lie in torch's older format alone.
    """

    name: str
    folder: Path
    kind: str
    digest: str
    weights: tuple[Path, ...]

    @property
    def pickled(self) -> bool:
        return self.weights[0].suffix == ".bin"


def find_seeing_model(name: str, store: Store) -> SeeingModel:
    """The model in a folder, or of an id in the Hugging Face cache; raises NotFound, Unreadable. Nothing is downloaded."""
    folder = _folder(name)
    kind = read_json_table(folder / "config.json").get("model_type") if (folder / "config.json").is_file() else None
    if not isinstance(kind, str):
        raise Unreadable(f"{folder} is no model that looks at pictures: it has no config.json that says a model_type", _HINT)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    weights = [path for path in files if path.suffix == ".safetensors"]
    weights = weights or [path for path in files if path.suffix == ".bin" and path.name.startswith("pytorch_model")]
    if not weights:
        raise Unreadable(f"{folder} has no weights in .safetensors or pytorch_model.bin", "Save the model with save_pretrained.")
    total = hashlib.sha256()
    for path in (*weights, *(path for path in files if path.suffix in (".json", ".txt"))):
        digest = store.remembered("file-digest", f"{path}|{identify(path)}", partial(hash_file, path))
        total.update(f"{path.name}\0{digest}\n".encode())
    return SeeingModel(name, folder, kind, total.hexdigest(), tuple(weights))


def require_clip(model: SeeingModel) -> None:
    """Raises Refused for a model that reads no prompts."""
    if model.kind != "clip":
        told = f"{model.name!r} is a {model.kind}, which reads no prompts"
        raise Refused(told, "Give a CLIP model, such as openai/clip-vit-large-patch14.")


_HINT = "Give a folder that transformers' save_pretrained wrote, or the id of a model in the Hugging Face cache."


def _folder(name: str) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(name)))
    if path.is_dir():
        return path
    if not path.exists() and name.count("/") <= 1 and not name.startswith((".", "~", "/")):
        from huggingface_hub import snapshot_download  # slow to import
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        with suppress(LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
            return Path(snapshot_download(name, local_files_only=True))
    raise NotFound(f"there is no model {name!r}, neither as a folder nor in the Hugging Face cache", _HINT)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What one model saw, in half precision: of pictures by the digest of their bytes, of texts by that of theirs."""

    home: Path
    model: str

    def read(self, digest: str) -> Floats | None:
        """One row of the length 1, None where it is not known or what is there is damaged."""
        try:
            found = np.frombuffer(self._place(digest).read_bytes(), dtype=_KEPT).astype(np.float64)
        except (OSError, ValueError):
            return None
        return found if found.size and abs(float(np.linalg.norm(found)) - 1) < _WHOLE else None

    def keep(self, digest: str, row: Floats) -> Floats:
        """Keeps a row of the length 1, where that is possible; gives it as it will be read."""
        content = np.ascontiguousarray(row, dtype=_KEPT).tobytes()
        keep_if_possible(self._place(digest), content)  # it can be computed again
        return np.frombuffer(content, dtype=_KEPT).astype(np.float64)

    def _place(self, digest: str) -> Path:
        return self.home / "embeddings" / self.model[:32] / digest[:2] / f"{digest}.f16"


def text_digest(text: str) -> str:
    """Under which what a model made of a text is kept; no picture's digest."""
    return hashlib.sha256(b"text\0" + text.encode("utf-8", "surrogatepass")).hexdigest()
