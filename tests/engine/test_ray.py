"""A grid on a Ray cluster: the same pictures, each once, whatever happens to a worker; and nothing left behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from cmp.cli.output import printing_aside
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import Progress
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Locked, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.cluster import Sent, needed_of
from tests.in_process import command
from tests.support import tiles_of

from .conftest import pixels
from .making import WEIGHTS, unet_adapter, write_step

pytestmark = pytest.mark.model

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
GIVEN = Answers(base="sd_nano")
PROMPTS = (Prompt("a red shoe"), Prompt("a blue star"))
SMALL, LONG = Sampling(2, 3.0, scheduler="DDIM"), Sampling(40, 3.0, scheduler="DDIM")
STRANGE = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CLUSTER = """import sys, ray
ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=80_000_000, _temp_dir=sys.argv[1], log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """A run of three steps that can be drawn, and of one that fits nothing."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    base = Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))
    for step in (2, 4, 6):
        write_step(tmp_path / "outputs" / "run", step, unet_adapter(base, 4, step))
    strange = {f"{STRANGE}.lora_A.weight": np.ones((4, 16), "f4"), f"{STRANGE}.lora_B.weight": np.ones((12, 4), "f4")}
    write_step(tmp_path / "outputs" / "run", 5, unet_adapter(base, 4, 5) | strange)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # exact workers take as many, and two of them are to fit on two processors
    yield Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device="cpu"))
    torch.set_num_threads(threads)


@pytest.fixture
def cluster(open_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a cluster with one processor, and the process that it hangs on."""
    around = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    code = [sys.executable, "-c", CLUSTER, str(open_path)]
    with subprocess.Popen(code, env=around, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdin and running.stdout
        yield running.stdout.readline().strip(), psutil.Process(running.pid)
        running.stdin.close()


def order(bench: Workbench, **axes: object) -> GridSpec:
    values: dict[str, object] = {"checkpoints": bench.find("run")[0].checkpoints, "prompts": PROMPTS, "samplings": (SMALL,)}
    return GridSpec(**(values | axes))  # type: ignore[arg-type]


def workers(process: psutil.Process) -> list[psutil.Process]:
    """The processes below it in which Ray runs ours."""
    return [child for child in process.children(recursive=True) if child.name().startswith("ray::Worker")]


def ends(process: int) -> bool:
    return bool(select.select([process], [], [], 20)[0])


def test_two_workers_draw_what_one_process_draws_though_one_is_killed_and_a_checkpoint_is_bad(
    bench: Workbench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, _ = bench.find("run")
    spec = order(bench, seeds=(0, 1), samplings=(LONG,))
    drew: set[str] = set()
    tiles: list[Tile] = []
    killed = None
    with printing_aside():
        for item in bench.draw_grid(spec, [run], GIVEN, ray="local:2"):
            if isinstance(item, Tile):
                tiles.append(item)
            elif "denoising" in item.what:
                drew.add(item.what.partition(":")[0])
            if killed is None and drew == {"worker 1", "worker 2"}:
                killed, missing = workers(psutil.Process())[0], spec.size - len(tiles)
                killed.send_signal(signal.SIGKILL)
    assert killed and missing > 2 and not workers(psutil.Process()) and not list((tmp_path / "home").glob(".cluster*"))
    assert len(tiles) == len({tile.cell for tile in tiles}) == spec.size
    local = Workbench(replace(bench.settings, home=tmp_path / "other"))
    for tile in tiles_of(local.draw_grid(spec, [run], GIVEN)):
        (other,) = (other for other in tiles if other.cell == tile.cell)
        assert (other.key, other.fault, other.mode) == (tile.key, tile.fault, tile.mode)
        assert tile.fault or np.array_equal(pixels(other.path), pixels(tile.path))
    failed = {tile.cell.checkpoint.step for tile in tiles if tile.fault and tile.cell.checkpoint}
    assert failed == {5} and capfd.readouterr().out == ""  # it belongs to --json


def test_a_job_on_a_cluster_goes_on_there_draws_nothing_twice_and_leaves_no_worker_when_it_is_left(
    bench: Workbench, cluster: tuple[str, psutil.Process]
) -> None:
    address, process = cluster
    run, _ = bench.find("run")
    good = tuple(checkpoint for checkpoint in run.checkpoints if checkpoint.step != 5)
    drawn = tiles_of(bench.draw_grid(order(bench, checkpoints=good[:2]), [run], GIVEN))
    spec = order(bench, checkpoints=good, preview=True, samplings=(SMALL, Sampling(900, 3.0, scheduler="DDIM")))
    begun = bench.follow_grid(spec, [run], GIVEN, address)
    next(begun)
    with pytest.raises(Locked, match="another grid"):
        next(iter(bench.draw_grid(spec, [run], GIVEN, address)))
    begun.close()  # type: ignore[attr-defined]
    assert not bench.cluster.locked()

    (record,) = bench.jobs.records()
    came: list[Tile] = []
    again = Workbench(bench.settings)
    work = again.jobs.go_on(record.id)
    for item in work:
        if isinstance(item, Tile):
            came.append(item)
        elif isinstance(item, Progress) and "denoising 20/900" in item.what:
            break
    assert isinstance(item, Progress) and "worker 1" in item.what and item.total == 2 * spec.size - len(drawn)
    assert {tile.cell for tile in came if tile.reused and not tile.preview} == {tile.cell for tile in drawn}
    assert {tile.cell for tile in came} == set(spec.cells()) and not [tile for tile in came if tile.fault]
    (worker,) = workers(process)
    watched = os.pidfd_open(worker.pid)
    work.close()  # type: ignore[attr-defined]
    assert ends(watched) and process.is_running() and not again.cluster.locked()

    gpu = Workbench(replace(bench.settings, device="cuda"))
    with pytest.raises(BadInput, match="no GPU"):
        next(iter(gpu.draw_grid(spec, [run], GIVEN, address)))


def sent(bench: Workbench) -> Sent:
    spec, runs = order(bench), (bench.find("run")[0],)
    return Sent(bench.settings, spec, runs, Answers(), (GIVEN,), needed_of(bench.settings, spec, Answers()))


def test_a_worker_that_does_not_see_the_files_says_which(bench: Workbench, tmp_path: Path) -> None:
    told = sent(bench)
    file = tmp_path / "outputs" / "run" / "checkpoint-4" / WEIGHTS
    file.unlink()
    with pytest.raises(Refused, match=f"far does not see {file}"):
        told("cpu", "far")


def test_a_worker_on_another_machine_keeps_its_own_facts_and_draws_into_the_same_store(bench: Workbench, tmp_path: Path) -> None:
    told = sent(bench)
    bench.store.put("pace", "cpu", [1])
    before = (bench.settings.home / "state.db").read_bytes()
    drawing = told("cpu", "far-10.0.0.2")
    tiles = tiles_of(drawing.draw(told.spec.cells()[:2]))
    assert [tile.path and tile.path.is_relative_to(tmp_path / "home" / "cells") for tile in tiles] == [True, True]
    assert (bench.settings.home / "state.db").read_bytes() == before
    assert drawing.store.get("pace", "cpu") is None and drawing.store.get("answers", str(tmp_path / "outputs" / "run"))


@pytest.mark.parametrize("address", ["", "local:0", "local:many", "ray://head:10001", "head", "head:port"])
def test_an_address_that_is_none_is_told_before_anything_begins(bench: Workbench, address: str) -> None:
    with pytest.raises(BadInput, match="address is"):
        bench.follow_grid(order(bench), [bench.find("run")[0]], GIVEN, address)
    assert bench.jobs.records() == ()


def test_an_address_at_which_nobody_answers_is_told_at_once(bench: Workbench) -> None:
    with pytest.raises(NotFound, match=r"127\.0\.0\.1:1"):
        next(iter(bench.draw_grid(order(bench), [bench.find("run")[0]], GIVEN, "127.0.0.1:1")))


def test_without_ray_a_grid_on_a_cluster_says_how_to_install_it(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    where = ("--runs", str(bench.settings.runs[0]), "--bases", str(bench.settings.bases[0]))
    said = command(bench.settings.home, *where, "grid", "run", "--prompt", "a shoe", "--ray", "local", "--json")
    assert said.code == 2 and "pip install -r requirements-ray.txt" in said.json["hint"], said.told
    assert len(tiles_of(bench.draw_grid(order(bench), [bench.find("run")[0]], GIVEN))) == 8
