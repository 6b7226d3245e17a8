"""Learned words of textual inversion: rows for the text encoder's table, and the tokens that stand for them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers import CLIPTokenizer

from cmp.core.grids import Prompt
from cmp.disk.bases import Component, read_component, read_index
from cmp.disk.checkpoint import Opened
from cmp.disk.json_table import read_json_table
from cmp.disk.merging import require_finite
from cmp.disk.numbers import as_float32, cast_bits
from cmp.disk.tensors import read_tensor, read_tensors
from cmp.disk.writing import write_tensors
from cmp.errors import Refused

_TABLES = ("string_to_param", "emb_params")  # webui's and OneTrainer's names of a word's table for the one text encoder
TABLE = "embeddings.token_embedding.weight"


def words_in(opened: Opened) -> tuple[str, ...]:
    """The learned words. webui's files do not name theirs: there it is the file's name, as which it is written into prompts."""
    return tuple(opened.header.path.stem if stored == "emb_params" else stored for stored in opened.weights.embeddings)


def check_words(opened: Opened, strength: float) -> None:
    """Raises Refused for what would leave no trace in a picture: a strength of a word."""
    if opened.weights.embeddings and strength != 1:
        told = f"the word {', '.join(words_in(opened))} has no strength of its own, and {strength:g} was asked for"
        raise Refused(told, "Draw learned words at strength 1.")


@dataclass(frozen=True, slots=True)
class Bundled:
    """The words of a prompt that LoRAs brought along: word → its rows (rows × width) as float32. They have no strength."""

    rows: Mapping[str, np.ndarray] = field(compare=False)
    digest: str

    def spell(self, text: str, tokens: Mapping[str, list[str]]) -> str:
        """The text with its words' tokens in their places; of two words that begin alike the longer one is meant."""
        words = sorted(self.rows, key=len, reverse=True)
        pattern = "|".join(f"({re.escape(word)})" for word in words)
        return _whole(pattern).sub(lambda found: "".join(tokens[words[int(found.lastindex or 1) - 1]]), text)


def bundled_words(worn: Iterable[Opened], prompt: Prompt, base: Path) -> Bundled | None:
    """The words of the prompt that lie beside the LoRAs that are worn, None if it uses none.

    Raises Refused where the prompt uses one that cannot be put on: the picture would not show what was trained.
    """
    rows: dict[str, np.ndarray] = {}
    for opened in worn:
        for word in opened.weights.bundled:
            if not _whole(re.escape(word)).search(f"{prompt.text}\n{prompt.negative}"):
                continue
            if word.casefold() in map(str.casefold, rows):
                raise Refused(f"the prompt uses the word {word}, which comes along twice", "Draw it without --stack, or without that word.")
            rows[word] = _bundled_rows(opened, word, base)
    if not rows:
        return None
    digest = hashlib.sha256()
    for word, values in sorted(rows.items()):
        digest.update(f"{word}\0{values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return Bundled(rows, digest.hexdigest())


def _bundled_rows(opened: Opened, word: str, base: Path) -> np.ndarray:
    start = f"bundle_emb.{word}."
    parts = [name for name in opened.header.tensors if name.startswith(start)]
    kind = parts[0].removeprefix(start).partition(".")[0] if len(parts) == 1 else ""
    if kind not in _TABLES or read_index(base).get("_class_name") != "StableDiffusionPipeline":
        # words for two text encoders have a table for each, OneTrainer's `_out` ones are added behind the encoder: neither is read here
        told = f"the prompt uses the word {word}, which {opened.header.path.name} holds beside its LoRA in a way that is not put on yet"
        raise Refused(told, "Draw it with a prompt without that word.")
    entry = opened.header.tensors[parts[0]]
    values = np.atleast_2d(as_float32(read_tensor(opened.header, parts[0]), entry.dtype))
    require_finite(parts[0], values, "F32")
    if values.ndim != 2 or not len(values):
        raise Refused(f"{parts[0]} is {list(entry.shape)}, and a word is rows × width", "The file is damaged.")
    return values


def _whole(pattern: str) -> re.Pattern[str]:
    """Words as the web UIs take them: not within others, in either case."""
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)


def read_words(opened: Opened) -> dict[str, np.ndarray]:
    """Word → its rows (rows × width) as float32."""
    words, names = {}, dict(zip(opened.weights.embeddings, words_in(opened), strict=True))
    for stored, values in read_tensors(opened.header, opened.weights.embeddings):
        if stored in ("clip_l", "clip_g"):
            raise Refused(f"{opened.header.path.name} holds words for two text encoders", "Only words of one text encoder are read so far.")
        rows = np.atleast_2d(as_float32(values, opened.header.tensors[stored].dtype))
        require_finite(stored, rows, "F32")
        words[names[stored]] = rows
    return words


def tokens_of(word: str, rows: int) -> list[str]:
    """diffusers' names for the rows of one word: `<sks>`, `<sks>_1`, …"""
    return [word, *(f"{word}_{index}" for index in range(1, rows))]


def write_words(opened: Opened, base: Path, draft: Path) -> str:
    """Writes the text encoder and tokenizer of `base` with the words into a pipeline's folder; gives the proof that they are there."""
    words = read_words(opened)
    if (base / "text_encoder_2").is_dir():
        raise Refused("the base model has two text encoders", "Words of one text encoder fit base models with one.")
    component = read_component(base, "text_encoder")
    name = next((n for n in component.header.tensors if n.endswith(TABLE)), None)
    entry = component.header.tensors[name] if name else None
    rows = np.concatenate(list(words.values()))
    if name is None or entry is None or rows.shape[1] != entry.shape[1]:
        raise Refused(
            f"the words are {rows.shape[1]} numbers wide, the base's are not", "They were learned with another base; give it with --base."
        )
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
    tokens = [token for word, own in words.items() for token in tokens_of(word, len(own))]
    if len(tokenizer) != entry.shape[0] or tokenizer.add_tokens(tokens) != len(tokens):
        raise Refused(
            f"the tokenizer of {base.name} has {', '.join(tokens)} already, or more words than its text encoder",
            "Give a base without them.",
        )
    tokenizer.save_pretrained(draft / "tokenizer")
    table = np.concatenate([read_tensor(component.header, name), cast_bits(rows, "F32", entry.dtype)])
    _write_encoder(component, name, table, draft / "text_encoder")
    return _read_back(draft, component, name, words, len(table))


def _write_encoder(component: Component, name: str, table: np.ndarray, folder: Path) -> None:
    described = {n: (e.dtype, e.shape) for n, e in component.header.tensors.items()}
    described[name] = (described[name][0], table.shape)

    def read(tensor: str) -> np.ndarray:
        return table if tensor == name else read_tensor(component.header, tensor)

    write_tensors(folder / "model.safetensors", described, read, {"format": "pt"})
    config = read_json_table(component.folder / "config.json") | {"vocab_size": len(table)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _read_back(draft: Path, component: Component, name: str, words: Mapping[str, np.ndarray], size: int) -> str:
    """Looks each word up in the written tokenizer, and its row in the written table, with the libraries that will use them."""
    tokenizer = CLIPTokenizer.from_pretrained(draft / "tokenizer", local_files_only=True)
    with safe_open(draft / "text_encoder" / "model.safetensors", framework="pt") as file:
        table = file.get_tensor(name)
    for word, rows in words.items():
        numbers = tokenizer.convert_tokens_to_ids(tokens_of(word, len(rows)))
        if not torch.equal(table[numbers], torch.from_numpy(rows).to(table.dtype)):
            raise Refused(f"the word {word!r} came back with other rows", "The disk may be failing; convert again.")
    return f"read back: {', '.join(f'{word} has its {len(rows)} rows' for word, rows in words.items())} of {size} in the text encoder"
