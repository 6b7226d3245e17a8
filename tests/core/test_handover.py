"""Handing over: what was hidden is gone, what is left stands where it stood, and no folder is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from cmp.core.arranging import arrange, read_matrix
from cmp.core.grids import Fault, GridSpec, Prompt, Sampling, Tile
from cmp.core.handover import hand_over, view_json, without_folders
from cmp.core.matrices import grid_matrix
from cmp.core.runs import Checkpoint
from cmp.core.views import View, read_view
from tests.core.test_arranging import AXES, GRID, keys, views

STEPS = tuple(Checkpoint("shoes", str(step), Path("/r"), "x", "lora", step=step) for step in (500, 1000))
SECRET = (Path("/home/jane doe/my runs"), Path("/home/jane doe"))
VALUE = {
    "axes": [{"key": axis.key, "label": axis.label, "values": list(axis.values)} for axis in AXES],
    "place": {axis.key: axis.place for axis in AXES},
    "step_axis": "c",
    "cells": [{**cell.record, "at": list(cell.at)} for cell in GRID],
}


def key_of(value: dict[str, Any], axis: str, label: str) -> str:
    """Of the value with that label."""
    return str(next(one["key"] for told in value["axes"] if told["key"] == axis for one in told["values"] if one["label"] == label))


@given(views)
def test_what_is_handed_over_looks_as_it_did(view: View) -> None:
    handed, left = hand_over(VALUE, view)
    assert keys(arrange(*read_matrix(handed), read_view(view_json(left)))) == keys(arrange(*read_matrix(VALUE), view))


def test_nothing_of_a_hidden_value_is_left() -> None:
    spec = GridSpec(STEPS, (Prompt("a secret prompt"), Prompt("a shoe")))
    value = grid_matrix(spec, [Tile(cell, f"k{i}") for i, cell in enumerate(spec.cells())], lambda c: (f"step {c.key}" if c else "", ""))
    value["marks"] = [{"at": {"checkpoint": 0}, "details": [["x", "kept"]]}, {"at": {"checkpoint": 1}, "details": [["x", "goes"]]}]
    view = View(hidden={"prompt": frozenset({key_of(value, "prompt", "a secret prompt")}), "checkpoint": frozenset({STEPS[1].id})})
    handed, left = hand_over(value, view)
    text = json.dumps([handed, view_json(left)])
    assert "secret" not in text and "1000" not in text and "goes" not in text
    assert [mark["details"] for mark in handed["marks"]] == [[["x", "kept"]]] and len(handed["cells"]) == 1


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/jane doe/my runs/a/b.safetensors", "b.safetensors"),
        ("the VAE /mnt/models/vae.safetensors is broken", "the VAE vae.safetensors is broken"),
        ("cannot read /home/jane doe/x y/z: no space", "cannot read x y/z: no space"),
        (r"C:\Users\jane\vae.pt", "vae.pt"),
        ("it is in /home/jane doe", "it is in "),
        ("and/or, 1/2, http://example.com/a/b", "and/or, 1/2, http://example.com/a/b"),
        ("/opt/a/x and /opt/b/y", "y"),
        ("tiny-sd (proof: tensors; /mnt/b/config.json)", "tiny-sd (proof: tensors; config.json)"),
    ],
)
def test_paths_are_cut_down_to_their_names(text: str, left: str) -> None:
    assert without_folders(text, SECRET) == left


def test_no_folder_is_named_wherever_one_stood_and_prompts_stay_as_they_were_written() -> None:
    spec = GridSpec(
        STEPS, (Prompt("a /really/odd/ prompt"),), samplings=(Sampling(vae="/mnt/jane/one.pt"), Sampling(vae="/mnt/jane/two.pt"))
    )
    fault = Fault("cannot read /home/jane doe/my runs/run/x.pt", "Look into /mnt/jane/logs/.")
    base = {"id": "/mnt/jane/bases/tiny", "proof": "user"}
    tiles = [Tile(cell, "k", fault=fault, base=base) for cell in spec.cells()]
    handed, _ = hand_over(grid_matrix(spec, tiles, lambda c: ("s", "")), View(), SECRET)
    text = json.dumps(handed)
    assert "jane" not in text and "a /really/odd/ prompt" in text and "two.pt" in text and "x.pt" in text


def test_values_that_only_their_folders_told_apart_stay_two() -> None:
    spec = GridSpec(STEPS, (Prompt("a"),), samplings=(Sampling(vae="/mnt/a/vae.pt"), Sampling(vae="/mnt/b/vae.pt")))
    value = grid_matrix(spec, [Tile(cell, f"k{i}") for i, cell in enumerate(spec.cells())], lambda c: (c.key if c else "", ""))
    handed, left = hand_over(value, View(order={"VAE": (key_of(value, "VAE", "VAE: /mnt/b/vae.pt"),)}))
    assert keys(arrange(*read_matrix(handed), left)) == [["k1", "k3"], ["k0", "k2"]]
