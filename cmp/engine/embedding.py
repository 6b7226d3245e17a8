"""Pictures and texts as CLIP models and image encoders see them: rows of the length 1, through transformers, from this disk alone.

Which part of a model's answer is taken: of CLIP the projected embeddings; of DINOv2 and ViT the first token of the last layer, as
DreamBooth's DINO score has it (a pooler on top of it may never have been trained); of SigLIP its attention pooling.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from cmp.core.curves import Floats
from cmp.core.image_scores import unit
from cmp.core.progress import Progress
from cmp.core.score_items import Picture
from cmp.disk.embeddings import Embeddings, SeeingModel, require_clip, text_digest
from cmp.disk.numbers import FLOATS, as_float32
from cmp.disk.pickled import read_pickled_header
from cmp.disk.samples import read_bytes
from cmp.disk.store import Store
from cmp.disk.tensors import Header, read_float32, read_header, read_tensors
from cmp.engine.device import without_memory
from cmp.engine.loading import require_all
from cmp.errors import NoSpace, Refused, Unreadable
from cmp.pictures.reading import read_rgb

REVISION = "1"  # raised by every change of ours that changes embeddings
# model_type → transformers' class, and what of its answer is the embedding
_SEEING = {
    "clip": ("CLIPModel", "projected"),
    "clip_vision_model": ("CLIPVisionModelWithProjection", "image_embeds"),
    "siglip": ("SiglipModel", "pooled"),
    "siglip_vision_model": ("SiglipVisionModel", "pooled"),
    "dinov2": ("Dinov2Model", "first"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "first"),
    "vit": ("ViTModel", "first"),
}
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_PROCESSORS = (("preprocessor_config.json",), ("processor_config.json",))
_AT_ONCE = {"cuda": 64, "mps": 16}
_FEW = 8  # pictures at once on a CPU
_FAULTS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)
_PACE = "pace of looking"  # seconds a picture, by device and model


@dataclass(slots=True)
class Eye:
    """One model that looks. It is loaded once something has not been seen before; `gpu` is held only while it computes.

    `cut` are the texts of which it reads the beginning alone, since they are longer than it can read.
    """

    model: SeeingModel
    device: torch.device
    store: Store
    gpu: threading.Lock
    loading: threading.Lock
    cut: tuple[str, ...] = ()
    _model: Any = field(default=None, repr=False)
    _processor: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.model.kind not in _SEEING:
            told = f"{self.model.name!r} is a model of the type {self.model.kind!r}"
            raise Refused(told, f"Give one of the types {', '.join(_SEEING)}.")

    @property
    def digest(self) -> str:
        return f"{self.model.digest}:{REVISION}"

    @property
    def _kept(self) -> Embeddings:
        return Embeddings(self.store.home, hashlib.sha256(self.digest.encode()).hexdigest())

    def look(self, pictures: Sequence[Picture], what: str) -> Generator[Progress, None, Floats]:
        """One row a picture, (n, width), in their order; raises Unreadable for what is no picture."""
        rows: dict[Picture, Floats] = {}
        unseen: dict[Picture, tuple[str, bytes]] = {}
        wanted = list(dict.fromkeys(pictures))
        for done, picture in enumerate(wanted):
            if done % 64 == 0:
                yield Progress(done, len(wanted), f"reading {what}")
            content = read_bytes(picture.path, picture.within)
            tile = picture.within.tile if picture.within else None
            digest = hashlib.sha256(content + (repr(tile).encode() if tile else b"")).hexdigest()
            known = self._kept.read(digest)
            if known is None:
                unseen[picture] = digest, content
                if len(unseen) >= self._at_once:
                    yield from self._see(unseen, rows, Progress(done, len(wanted), f"looking at {what}"))
            else:
                rows[picture] = known
        yield from self._see(unseen, rows, Progress(len(wanted) - len(unseen), len(wanted), f"looking at {what}"))
        return np.array([rows[picture] for picture in pictures])

    def knows(self, picture: Picture) -> bool:
        """Whether it has seen a picture before, as its file is now."""
        content = read_bytes(picture.path, picture.within)
        tile = picture.within.tile if picture.within else None
        return self._kept.read(hashlib.sha256(content + (repr(tile).encode() if tile else b"")).hexdigest()) is not None

    @property
    def pace(self) -> float | None:
        """Seconds that a new picture takes, None where none was looked at here."""
        found = self.store.get(_PACE, f"{self.device.type}|{self.model.digest}")
        return float(found) if isinstance(found, (int, float)) else None

    @property
    def _at_once(self) -> int:
        return _AT_ONCE.get(self.device.type, _FEW)

    def _see(
        self, unseen: dict[Picture, tuple[str, bytes]], rows: dict[Picture, Floats], step: Progress
    ) -> Generator[Progress, None, None]:
        """Moves what is unseen to what is seen."""
        if not unseen:
            return
        yield step
        images = [
            read_rgb(content, picture.path, picture.within.tile if picture.within else None) for picture, (_, content) in unseen.items()
        ]
        while not self.gpu.acquire(timeout=0.2):
            yield Progress(step.done, step.total, "waiting for another drawing")
        try:
            model = self._loaded()
            began = time.monotonic()
            with _looking(self.model.folder), torch.inference_mode():
                pixels = self._pixels(images).to(self.device)
                found = self._seen(model, pixels).float().cpu().numpy()
            took = (time.monotonic() - began) / len(unseen)
        finally:
            self.gpu.release()
        for (picture, (digest, _)), row in zip(unseen.items(), unit(found), strict=True):
            rows[picture] = self._kept.keep(digest, row)
        unseen.clear()
        with suppress(Refused):
            self.store.put(_PACE, f"{self.device.type}|{self.model.digest}", took)

    def _seen(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        taken = _SEEING[self.model.kind][1]
        if taken == "projected":
            return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        if self.model.kind == "siglip":
            return model.vision_model(pixel_values=pixels).pooler_output
        answer = model(pixel_values=pixels)
        found: torch.Tensor = (
            answer.last_hidden_state[:, 0] if taken == "first" else answer.image_embeds if taken == "image_embeds" else answer.pooler_output
        )
        return found

    # -- texts ---------------------------------------------------------------------------------------------------------

    def read(self, texts: Sequence[str]) -> Generator[Progress, None, Floats]:
        """One row a text, (n, width)."""
        require_clip(self.model)
        wanted = list(dict.fromkeys(texts))
        yield Progress(0, len(wanted), "reading the prompts")
        tokens, longest = self._tokens()
        self.cut = tuple(text for text, own in zip(wanted, tokens(wanted, verbose=False)["input_ids"], strict=True) if len(own) > longest)
        rows = {text: known for text in wanted if (known := self._kept.read(text_digest(text))) is not None}
        left = [text for text in wanted if text not in rows]
        while not self.gpu.acquire(timeout=0.2):
            yield Progress(0, len(wanted), "waiting for another drawing")
        try:
            for at in range(0, len(left), self._at_once):
                part = left[at : at + self._at_once]
                model = self._loaded()
                asked = tokens(part, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(self.device)
                with _looking(self.model.folder), torch.inference_mode():
                    answer = model.text_model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"])
                    found = model.text_projection(answer.pooler_output).float().cpu().numpy()
                for text, row in zip(part, unit(found), strict=True):
                    rows[text] = self._kept.keep(text_digest(text), row)
        finally:
            self.gpu.release()
        return np.array([rows[text] for text in texts])

    def logit_scale(self) -> float:
        """The logarithm of the factor that a CLIP model multiplies its cosines by."""
        require_clip(self.model)
        for header in map(_header, self.model.weights):
            if "logit_scale" in header.tensors:
                found = float(read_float32(header, "logit_scale").reshape(-1)[0])
                if math.isfinite(found):
                    return found
        raise Unreadable(f"{self.model.folder} has no logit_scale among its weights", "Give a complete CLIP model.")

    # -- loading -------------------------------------------------------------------------------------------------------

    def _loaded(self) -> Any:
        if self._model is None:
            with self.loading, _told_as_unreadable(self.model.folder):
                kind = getattr(transformers, _SEEING[self.model.kind][0])
                more = {"add_pooling_layer": False} if self.model.kind == "vit" else {}
                quiet: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, **more}
                if self.model.pickled:
                    config = kind.config_class.from_pretrained(self.model.folder, local_files_only=True)
                    model, told = kind.from_pretrained(None, config=config, state_dict=_state(self.model.weights), **quiet)
                else:
                    model, told = kind.from_pretrained(self.model.folder, local_files_only=True, use_safetensors=True, **quiet)
                require_all(self.model.folder, "model", told)
            self._model = model.eval().requires_grad_(False).to(self.device)
        return self._model

    def _pixels(self, images: Sequence[Any]) -> torch.Tensor:
        if self._processor is None:
            self._require_one(_PROCESSORS, "says how pictures are made ready for it")
            with self.loading, _told_as_unreadable(self.model.folder):
                # Pillow, wherever torchvision is there too: both cut and scale a little differently
                kept: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "backend": "pil"}
                self._processor = transformers.AutoImageProcessor.from_pretrained(self.model.folder, **kept)
        found: torch.Tensor = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        return found

    def _tokens(self) -> tuple[Any, int]:
        """The tokenizer, and how many tokens the model reads."""
        self._require_one(_TOKENIZERS, "is its tokenizer")  # without one transformers makes one that knows no words, and says nothing
        with self.loading, _told_as_unreadable(self.model.folder):
            config = transformers.CLIPConfig.from_pretrained(self.model.folder, local_files_only=True)
            found = transformers.AutoTokenizer.from_pretrained(self.model.folder, local_files_only=True, trust_remote_code=False)
        if len(found) > config.text_config.vocab_size:
            told = f"the tokenizer in {self.model.folder} has {len(found)} words, and the model knows {config.text_config.vocab_size}"
            raise Refused(told, "It is of another model; give a complete folder.")
        return found, int(config.text_config.max_position_embeddings)

    def _require_one(self, files: Sequence[tuple[str, ...]], what: str) -> None:
        """Raises Unreadable where none of these groups of files is there."""
        if not any(all((self.model.folder / name).is_file() for name in group) for group in files):
            told = f"nothing in {self.model.folder} {what}: {' or '.join(' with '.join(group) for group in files)}"
            raise Unreadable(
                told, "Copy it from the model that this one was made of; PickScore's is laion/CLIP-ViT-H-14-laion2B-s32B-b79K."
            )


def _header(path: Path) -> Header:
    return read_pickled_header(path) if path.suffix == ".bin" else read_header(path)


def _state(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The tensors in files of torch.save, of which nothing is unpickled."""
    state: dict[str, torch.Tensor] = {}
    for header in map(_header, files):
        floats = [name for name, entry in header.tensors.items() if entry.dtype in FLOATS]
        state |= {name: torch.from_numpy(as_float32(v, header.tensors[name].dtype).copy()) for name, v in read_tensors(header, floats)}
    return state


@contextmanager
def _told_as_unreadable(folder: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as fault:
        if without_memory(fault):
            raise NoSpace(f"the memory is not enough for {folder}", "Use a smaller model, or CMP_DEVICE=cpu.") from fault
        raise Unreadable(f"cannot load the model {folder}: {str(fault)[:300]}", "Check that the folder is complete.") from fault


@contextmanager
def _looking(folder: Path) -> Iterator[None]:
    """What a model does not take, such as pictures of another size than its own, is told as its folder's fault."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as fault:
        if without_memory(fault):
            raise NoSpace("the memory is not enough to look at pictures", "Use a smaller model, or CMP_DEVICE=cpu.") from fault
        told = f"the model {folder} does not take what its own settings make ready: {str(fault)[:300]}"
        raise Unreadable(told, "Its preprocessor_config.json or its tokenizer is of another model; give a complete folder.") from fault
