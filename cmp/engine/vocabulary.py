"""The words that a pipeline knows: its tokenizer, and the table of its text encoder. Lent out to be added to, and put back as they were."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import AddedToken

from cmp.core.grids import Prompt
from cmp.engine.words import Bundled
from cmp.errors import Refused


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A pipeline's own tokenizer and table, the very objects."""

    tokenizer: Any
    table: Any  # the embedding layer
    weight: torch.nn.Parameter
    values: torch.Tensor  # the weight's memory: the libraries change it in place
    size: int

    @classmethod
    def lent(cls, pipe: Any) -> Vocabulary:
        """What the pipeline has of its own; from now on it works with a copy of the tokenizer."""
        table = pipe.text_encoder.get_input_embeddings()
        own = cls(pipe.tokenizer, table, table.weight, table.weight.data, table.num_embeddings)
        pipe.tokenizer = copy.deepcopy(pipe.tokenizer)
        return own

    def put_back(self, pipe: Any) -> None:
        """As if nothing had ever been added."""
        pipe.tokenizer = self.tokenizer
        self.weight.data = self.values
        self.table.weight, self.table.num_embeddings = self.weight, self.size
        pipe.text_encoder.set_input_embeddings(self.table)
        pipe.text_encoder.config.vocab_size = self.size


@contextmanager
def knowing(pipe: Any, words: Bundled | None, prompt: Prompt) -> Iterator[Prompt]:
    """The prompt as the pipeline is to be asked meanwhile: its text encoder knows the words, proven. Afterwards it knows its own alone.

    Each row of a word is a token of ours, so that a word is found as the web UIs find it, whole and in either case. Raises Refused where
    the words do not fit the text encoder, or a prompt is so long that one is cut off.
    """
    if words is None:
        yield prompt
        return
    own = Vocabulary.lent(pipe)
    try:
        tokens = {word: [f"<cmp{number}.{row}>" for row in range(len(rows))] for number, (word, rows) in enumerate(words.rows.items())}
        _add(pipe, own, words, tokens)
        spelled = replace(prompt, text=words.spell(prompt.text, tokens), negative=words.spell(prompt.negative, tokens))
        for text in (spelled.text, spelled.negative):
            _prove_read(pipe.tokenizer, text, [token for added in tokens.values() for token in added])
        yield spelled
    finally:
        own.put_back(pipe)


@torch.no_grad()
def _add(pipe: Any, own: Vocabulary, words: Bundled, tokens: dict[str, list[str]]) -> None:
    rows = torch.from_numpy(np.concatenate(list(words.rows.values()))).to(own.values)
    if rows.shape[1] != own.values.shape[1]:
        told = f"the words {', '.join(words.rows)} are {rows.shape[1]} numbers wide, the base's are {own.values.shape[1]}"
        raise Refused(told, "They were learned with another base; give it with --base.")
    added = [AddedToken(token, normalized=False) for of_word in tokens.values() for token in of_word]
    if len(own.tokenizer) != len(own.values) or pipe.tokenizer.add_tokens(added) != len(added):
        raise Refused("the tokenizer of the base has other words than its text encoder", "No further word can be given to such a base.")
    own.table.weight = torch.nn.Parameter(torch.cat([own.values, rows]), requires_grad=False)
    own.table.num_embeddings = len(own.table.weight)
    landed = own.table.weight[pipe.tokenizer.convert_tokens_to_ids([token.content for token in added])]
    if not torch.equal(landed, rows):
        raise Refused(f"the words {', '.join(words.rows)} did not land in the text encoder", "This is a fault of ours; please report it.")


def _prove_read(tokenizer: Any, text: str, tokens: list[str]) -> None:
    """Every row of a word that stands in the text is among the numbers that the text encoder will read."""
    read = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids
    for token, number in zip(tokens, tokenizer.convert_tokens_to_ids(tokens), strict=True):
        if read.count(number) != text.count(token):
            told = f"a learned word is cut off: the prompt is longer than the {tokenizer.model_max_length} tokens that are read"
            raise Refused(told, "Put the word further to the front.")
