"""Equal files of pipelines: found by their bytes, and never made one of two that differ."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from cmp.disk.tensors import identify
from tests.storing import cmp, contents, frozen_run, grow_old
from tests.support import Training, save

BYTES = 1 << 20


@pytest.fixture
def made(tmp_path: Path) -> Training:
    """A run with two pipelines whose VAE is the base's, and whose text encoder is its own but of the same size."""
    made = frozen_run(tmp_path)
    save(made.base / "vae" / "diffusion_pytorch_model.safetensors", {"a": np.zeros(BYTES, "f4")})
    save(made.base / "text_encoder" / "model.safetensors", {"a": np.ones(BYTES, "f4")})
    for name in ("one", "two"):
        shutil.copytree(made.base, made.run / "final_pipeline" if name == "one" else made.run / "kept")
    for place in (made.run / "final_pipeline", made.run / "kept"):
        save(place / "text_encoder" / "model.safetensors", {"a": np.full(BYTES, len(place.name), "f4")})
    grow_old(tmp_path)
    return made


def shared(made: Training) -> list[Path]:
    first = identify(made.base / "vae" / "diffusion_pytorch_model.safetensors").inode
    return [file for file in made.run.rglob("*/vae/*.safetensors") if identify(file).inode == first]


def test_what_is_the_same_to_the_last_byte_is_offered_and_nothing_else(made: Training) -> None:
    items = cmp(made, "storage", "--share", "hardlink").json["items"]
    assert {item["action"] for item in items} == {"share"} and {Path(item["path"]).parent.name for item in items} == {"vae"}
    assert len(items) == 2 and all("edits both" in item["why"] for item in items) and shared(made) == []


def test_hard_links_hold_the_same_bytes_in_one_file(made: Training) -> None:
    before = contents(made.outputs.parent / "outputs")
    said = cmp(made, "storage", "--share", "hardlink", "--yes")
    assert said.code == 0 and len(shared(made)) == 2 and contents(made.outputs) == before, said.told
    assert cmp(made, "storage", "--share", "hardlink").json["items"] == []


def test_where_the_disk_has_reflinks_they_are_made_and_elsewhere_it_is_said_and_nothing_changes(made: Training) -> None:
    before = contents(made.outputs)
    said = cmp(made, "storage", "--share", "reflink", "--yes")
    assert contents(made.outputs) == before and shared(made) == []
    if said.code:
        assert all(fault["code"] == 5 and "reflinks" in fault["error"] for fault in said.json["failed"])
        warnings.warn("this disk has no reflinks, so that only their refusal is tested", stacklevel=2)


def test_a_file_that_became_another_since_the_plan_stays(made: Training) -> None:
    from dataclasses import replace

    from cmp.core.storage import Rules
    from cmp.disk.sharing import share
    from cmp.disk.usage import mark
    from cmp.errors import Refused
    from cmp.workbench.storing import Asked
    from tests.support import bench_of

    bench = bench_of(made)
    item = bench.plan_cleanup(bench.library().runs, Rules(), Asked(share="hardlink")).changes[0]
    save(item.path, {"a": np.full(BYTES, 5, "f4")})
    with pytest.raises(Refused, match="no longer the same"):
        share(replace(item, mark=mark(item.path)), "hardlink")
    assert shared(made) == []


def test_a_way_that_there_is_not_is_quoted(made: Training) -> None:
    assert cmp(made, "storage", "--share", "softlink").code == 2
