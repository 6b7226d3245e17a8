"""Equal files of pipelines: found by their bytes, and never made one of two that differ."""

from __future__ import annotations

import shutil
import struct
import subprocess
import warnings
from collections.abc import Iterator
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


@pytest.fixture(params=["btrfs", "xfs"])
def cloning_disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system that has reflinks, in a file; skips, and says so, where none can be made or mounted."""
    kind, aside = request.param, tmp_path_factory.mktemp("aside")
    image, place = aside / "image", aside / "disk"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    try:
        for line in (["mkfs." + kind, "-q", image], ["mount", "-o", "loop", image, place]):
            subprocess.run(line, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as fault:
        told = f"no {kind} disk could be made, so that reflinks are not tested there: {getattr(fault, 'stderr', '') or fault}"
        warnings.warn(told, stacklevel=2)
        pytest.skip(told)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)  # what is remembered of the runs may still be open there


def first_block(file: Path) -> int:
    """Where a file's bytes begin on its disk (linux/fiemap.h)."""
    from fcntl import ioctl

    asked = bytearray(struct.pack("=QQLLLL", 0, 1 << 40, 1, 0, 1, 0) + bytes(56))
    with open(file, "rb") as opened:
        ioctl(opened.fileno(), 0xC020660B, asked)
    return int(struct.unpack_from("=QQ", asked, 32)[1])


def test_reflinks_share_blocks_and_stay_two_files(made: Training, cloning_disk: Path) -> None:
    there = cloning_disk / "training"
    shutil.copytree(made.outputs.parent, there)
    grow_old(there)
    made = Training(there / made.run.relative_to(made.outputs.parent), there / "outputs", there / "bases")
    before, files = contents(made.outputs), sorted(made.run.rglob("*/vae/*.safetensors"))
    modes = [(file.stat().st_mode, file.stat().st_mtime_ns) for file in files]
    source = made.base / "vae" / "diffusion_pytorch_model.safetensors"
    assert len({first_block(file) for file in (source, *files)}) == 3
    said = cmp(made, "storage", "--share", "reflink", "--yes")
    assert said.code == 0 and len(said.json["items"]) == 2, said.told
    assert {first_block(file) for file in files} == {first_block(source)} and first_block(source) > 0
    assert contents(made.outputs) == before and shared(made) == []
    assert [(file.stat().st_mode, file.stat().st_mtime_ns) for file in files] == modes
    own = source.read_bytes()
    with open(files[0], "r+b") as file:
        file.write(b"edited")
    assert source.read_bytes() == own and contents(made.outputs) != before, "who edits one edits one"


def test_a_pipeline_shares_its_base_s_blocks_where_the_disk_can_and_its_plan_counts_none_of_them(
    made: Training, cloning_disk: Path
) -> None:
    there = cloning_disk / "training"
    shutil.copytree(made.outputs.parent, there)
    made = Training(there / made.run.relative_to(made.outputs.parent), there / "outputs", there / "bases")
    plan = cmp(made, "convert", f"{made.run.name}@1000", "--to", "pipeline", "--dry-run").json["planned"][0]
    assert plan["bytes"] < BYTES, "the base's VAE and text encoder have four times as much each"
    said = cmp(made, "convert", f"{made.run.name}@1000", "--to", "pipeline")
    assert said.code == 0, said.told
    source, copy = (folder / "vae" / "diffusion_pytorch_model.safetensors" for folder in (made.base, Path(plan["output"])))
    assert first_block(copy) == first_block(source) > 0 and identify(copy).inode != identify(source).inode
    before = source.read_bytes()
    with open(copy, "r+b") as file:
        file.write(b"edited")
    assert source.read_bytes() == before


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
