"""What is shared says nothing of where things lie here, and safetensors keep their tensors when their words are cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cmp.disk.publishing import require_nothing_of, tell_metadata
from cmp.errors import Refused


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("it lies in /home/jane/runs/shoes", "/home/jane"),
        ('{"path": "/home/jane"}', "/home/jane"),
        ("file:///home/jane/x", "/home/jane"),
        (json.dumps("/home/jané/x"), "/home/jané"),
        ("/home/jané/x", "/home/jané"),
        ("/data/x.png", "/data"),
    ],
)
def test_a_file_that_tells_a_place_is_refused(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.svg").write_text(f"<svg>{text}</svg>", encoding="utf-8")
    with pytest.raises(Refused, match=r"images/a\.svg would tell"):
        require_nothing_of(tmp_path, [Path(place)])


@pytest.mark.parametrize(("text", "place"), [("/home/janet/x", "/home/jane"), ("cmp/data/x", "/data"), ("/data", "/data"), ("/x", "/")])
def test_other_words_are_no_places(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    require_nothing_of(tmp_path, [Path(place)])


def test_words_of_a_safetensors_file_are_cut_and_its_tensors_stay(tmp_path: Path) -> None:
    file, tensors = tmp_path / "a.safetensors", {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(5, np.float16)}
    save_file(tensors, file, {"format": "pt", "told": json.dumps({"n": 1, "x": ["/secret/a", {"y": "/secret/b"}]}), "plain": "/secret/c"})
    tell_metadata(file, lambda text: text.replace("/secret/", ""))
    with safe_open(file, "numpy") as opened:
        told = opened.metadata()
    assert told["plain"] == "c" and json.loads(told["told"]) == {"n": 1, "x": ["a", {"y": "b"}]} and told["format"] == "pt"
    found = load_file(file)
    assert set(found) == set(tensors) and all(np.array_equal(found[name], tensors[name]) for name in tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
