"""Learned words of textual inversion: rows for the text encoder's table, and the tokens that stand for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers import CLIPTokenizer

from cmp.core.grids import Prompt
from cmp.disk.bases import Component, read_component
from cmp.disk.checkpoint import Opened
from cmp.disk.json_table import read_json_table
from cmp.disk.merging import require_finite
from cmp.disk.numbers import as_float32, cast_bits
from cmp.disk.tensors import read_tensor, read_tensors
from cmp.disk.writing import write_tensors
from cmp.errors import Refused

TABLE = "embeddings.token_embedding.weight"


def words_in(opened: Opened) -> tuple[str, ...]:
    """The learned words. webui's files do not name theirs: there it is the file's name, as which it is written into prompts."""
    return tuple(opened.header.path.stem if stored == "emb_params" else stored for stored in opened.weights.embeddings)


def check_words(opened: Opened, prompt: Prompt, strength: float) -> None:
    """Raises Refused for what would leave no trace in a picture: a strength of a word, and a word beside a LoRA, which is not put on."""
    if opened.weights.embeddings and strength != 1:
        told = f"the word {', '.join(words_in(opened))} has no strength of its own, and {strength:g} was asked for"
        raise Refused(told, "Draw learned words at strength 1.")
    for word in opened.weights.bundled:
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", f"{prompt.text}\n{prompt.negative}", re.IGNORECASE):
            raise Refused(
                f"the prompt uses the word {word}, which {opened.header.path.name} holds beside its LoRA and which is not put on yet",
                "Draw it with a prompt without that word.",
            )


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
