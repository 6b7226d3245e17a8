"""What a pipeline takes over from its base: files of its own, planned to the byte; nothing written into them reaches the base."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.numpy import load_file, save_file

from cmp.core.conversion import Conversion
from cmp.core.progress import run_through
from cmp.disk.cloning import can_clone
from cmp.disk.ready import Answers
from cmp.disk.tensors import read_header
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.engine.making import UNET_FILE, unet_adapter, write_step
from tests.support import DEVICE

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
SD = Answers(base="sd_nano")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """As it lies in the Hugging Face cache: every file a link to a blob."""
    folder = Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))
    for number, file in enumerate([file for file in sorted(folder.rglob("*")) if file.is_file()]):
        blob = tmp_path / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        shutil.move(file, blob)
        file.symlink_to(blob)
    return folder


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    for step in (2, 4):
        write_step(tmp_path / "outputs" / "run", step, unet_adapter(base, 4, step))
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


def held(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's bytes, and under how many names they lie."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_nlink) for file in sorted(folder.rglob("*")) if file.is_file()
    }


def convert(bench: Workbench, *targets: str, form: str = "pipeline") -> list[Path]:
    plans = [bench.plan_conversion(target, form, SD) for target in targets]
    told = list(bench.convert_all(plans, SD))
    return [one.output for one in told if isinstance(one, Conversion)]


def test_pipelines_planned_together_all_come_about_and_what_is_saved_into_one_changes_no_other_and_not_the_base(
    bench: Workbench, base: Path
) -> None:
    before = held(base)
    one, two = convert(bench, "run@2", "run@4")
    assert {file for file, _ in held(one).values()} >= {file for name, (file, _) in before.items() if name != UNET_FILE}
    assert not any(path.is_symlink() for path in one.rglob("*")) and held(base) == before
    sibling = held(two)
    DDIMScheduler.from_pretrained(one / "scheduler", clip_sample=True, num_train_timesteps=7).save_pretrained(one / "scheduler")
    AutoencoderKL.from_pretrained(one / "vae").save_pretrained(one / "vae")
    for file in (file for file in one.rglob("*") if file.is_file()):
        with open(file, "r+b") as opened:  # as an editor, rsync --inplace, torch.save and older safetensors write
            opened.truncate(3)
    assert held(base) == before and held(two) == sibling


def test_a_plan_tells_to_the_byte_what_will_be_written(bench: Workbench, base: Path) -> None:
    plan = bench.plan_conversion("run@2", "pipeline", SD)
    made = run_through(bench.convert(plan)).output
    tensors = sum(entry.end - entry.start for entry in read_header(made / UNET_FILE).tensors.values())
    rest = sum(file.stat().st_size for file in made.rglob("*") if file.is_file() and file.name != "checkpoint_metadata.json")
    copied = 0 if can_clone(base / UNET_FILE, made) else rest - (made / UNET_FILE).stat().st_size
    assert plan.bytes == tensors + copied > tensors // 2


def test_one_file_is_made_without_copying_the_base_or_touching_it(bench: Workbench, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, times = held(base), {file: file.stat().st_ctime_ns for file in base.rglob("*") if file.is_file()}
    copied: list[Path] = []
    monkeypatch.setattr("cmp.engine.convert.clone", lambda source, _: copied.append(source))
    (made,) = convert(bench, "run@2", form="single")
    assert made.is_file() and held(base) == before and {file: file.stat().st_ctime_ns for file in times} == times
    assert copied and max(file.stat().st_size for file in copied) < 1 << 20 and [*made.parent.iterdir()] == [made]


def test_a_further_name_for_the_base_is_no_change_since_the_plan_and_other_bytes_of_the_same_age_are(
    bench: Workbench, base: Path, tmp_path: Path
) -> None:
    plan, other = (bench.plan_conversion(target, "pipeline", SD) for target in ("run@2", "run@4"))
    file = (base / UNET_FILE).resolve()
    os.link(file, tmp_path / "as a backup of hard links does")
    assert run_through(bench.convert(plan)).output.is_dir()
    times = file.stat()
    save_file({name: -values for name, values in load_file(file).items()}, tmp_path / "other.safetensors", {"format": "pt"})
    shutil.copyfile(tmp_path / "other.safetensors", file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "as a backup of hard links does").unlink()
    plan = bench.plan_conversion("run@4", "pipeline", SD)
    shutil.copyfile(tmp_path / "other.safetensors", file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(Refused, match="has changed since"):
        run_through(bench.convert(plan))
    assert not other.target.exists()
