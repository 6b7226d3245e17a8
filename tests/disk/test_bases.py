"""Base models: found where they may be, proven by their tensors, never fetched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cmp.core.runs import Run
from cmp.disk.base_proof import compare_with_base
from cmp.disk.bases import digest_base, files_below, find_base, pipelines_below, read_component
from cmp.disk.checkpoint import open_weights
from cmp.disk.ready import Answers, Ready, ready_checkpoint
from cmp.disk.scan import scan
from cmp.disk.store import Store
from cmp.disk.tensors import read_tensors
from cmp.errors import CmpError, NotFound, Refused, Unreadable
from tests.support import Training, as_nobody, base_pipeline, base_tensors, diffusers_run, origin_run, save, wrapped_tensors


def run(recorded: str | None = "tiny-sd") -> Run:
    return Run("r", Path("/r"), Path("/"), "accelerate", recorded)


# finding


def test_what_is_given_goes_before_what_is_remembered_and_that_before_what_is_recorded(tmp_path: Path) -> None:
    for name in ("given", "remembered", "recorded"):
        base_pipeline(tmp_path).rename(tmp_path / name)
    found = [find_base(run("recorded"), [tmp_path], *said) for said in (("given", "remembered"), (None, "remembered"), (None, None))]
    assert [(base.id, base.path.name, base.proof) for base in found] == [(n, n, "user") for n in ("given", "remembered", "recorded")]


@pytest.mark.parametrize("wanted", ["tiny-sd", "org/tiny-sd", "tiny-sd/", "/where/it/was/trained/tiny-sd", "C:\\models\\tiny-sd"])
def test_a_recorded_id_or_path_is_found_by_its_name_in_a_folder_of_bases(tmp_path: Path, wanted: str) -> None:
    assert find_base(run(wanted), [tmp_path / "none", base_pipeline(tmp_path).parent]).path == tmp_path / "tiny-sd"


def test_an_id_below_its_owners_folder_goes_before_its_bare_name(tmp_path: Path) -> None:
    base_pipeline(tmp_path / "org")
    base_pipeline(tmp_path)
    assert find_base(run("org/tiny-sd"), [tmp_path]).path == tmp_path / "org" / "tiny-sd"


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_pipeline(tmp_path)
    assert find_base(run(None), [], str(base)).path == base
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_base(run(None), [], "~/tiny-sd").path == base


@pytest.mark.parametrize("wanted", ["nowhere", "~nobody-of-this-name/x", "https://example.org/x", "a\0b", "x" * 5000, "../..", "/", "."])
def test_a_base_that_is_not_here_is_not_found_and_it_is_said_where_it_was_sought(tmp_path: Path, wanted: str) -> None:
    for said in ((wanted, None), (None, None)):
        with pytest.raises(NotFound) as fault:
            find_base(run(wanted), [tmp_path], *said)
        assert str(tmp_path) in fault.value.hint and "--base" in fault.value.hint


def test_an_id_that_was_never_downloaded_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it went to the network"))
    with pytest.raises(NotFound, match="org/never-downloaded"):
        find_base(run("org/never-downloaded"), [tmp_path])


def test_pipelines_are_listed_two_levels_deep_and_not_deeper(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "org", tmp_path / "a" / "b"):
        base_pipeline(place)
    assert pipelines_below([tmp_path, tmp_path / "none"]) == [tmp_path / "tiny-sd", tmp_path / "org" / "tiny-sd"]


# reading


def shards(folder: Path, weight_map: object) -> Path:
    base = base_pipeline(folder)
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    for i in (0, 1):
        save(base / "unet" / f"part-{i}.safetensors", {n: v for j, (n, v) in enumerate(base_tensors().items()) if j % 2 == i})
    text = weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map})
    (base / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    return base


def test_a_component_in_several_files_is_read_as_one(tmp_path: Path) -> None:
    names = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(base_tensors())}
    component = read_component(shards(tmp_path, names), "unet")
    assert set(component.shapes) == set(base_tensors()) and len(component.header.files) == 2
    assert all(np.array_equal(values, base_tensors()[name]) for name, values in read_tensors(component.header, base_tensors()))


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../../outside.safetensors"}, {"a": "/etc/passwd"}, {"a": "sub/x.safetensors"}, {"a": ".."}, {"a": "..\\x"}, {"a": 5},
        {"a": "missing.safetensors"}, {"a": []}, [], "not JSON", "[]", "{}", '{"weight_map": 1}',
    ],
    ids=str,
)  # fmt: skip
def test_a_list_of_shards_that_leads_elsewhere_or_nowhere_is_refused(tmp_path: Path, weight_map: object) -> None:
    save(tmp_path / "outside.safetensors", base_tensors())
    with pytest.raises(Unreadable):
        read_component(shards(tmp_path / "bases", weight_map), "unet")


def test_a_component_that_is_not_there_is_not_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="text_encoder"):
        read_component(base_pipeline(tmp_path), "text_encoder")


def test_a_base_without_permission_is_an_error_of_ours_and_no_traceback(open_path: Path) -> None:
    base = base_pipeline(open_path)
    (base / "unet").chmod(0)

    def told() -> str:
        try:
            read_component(base, "unet")
        except CmpError as fault:
            return fault.title
        return "read"

    assert as_nobody(told) in ("Not found", "Cannot read")


# proof


def ready(made: Training, *bases: Path, step: int = 500, given: Answers = Answers()) -> Ready:
    run = scan([made.outputs]).runs[0]
    store = Store(made.outputs.parent / "home")
    return ready_checkpoint(run, run.checkpoint(str(step)), bases or (made.bases,), store, given, need_base=True)


def test_a_full_dump_proves_its_base_by_every_tensor(tmp_path: Path) -> None:
    base = ready(origin_run(tmp_path, (500,))).base
    assert base is not None and base.proof == "tensors" and f"all {len(base_tensors())} frozen tensors equal" in base.source


def test_an_adapter_alone_proves_nothing_and_its_base_is_the_users_word(tmp_path: Path) -> None:
    base = ready(diffusers_run(tmp_path / "d"), base_pipeline(tmp_path / "bases").parent, step=2).base
    assert base is not None and base.proof == "user"


def test_a_dump_on_another_base_is_refused_and_the_first_tensor_named(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,))
    base_pipeline(made.bases, {name: values + 1 for name, values in base_tensors().items()})
    for _ in range(2):  # also when the answer is remembered
        with pytest.raises(Refused, match=rf"{len(base_tensors())} differ, for example base_model\.model"):
            ready(made)


def test_a_dump_of_which_a_little_was_trained_too_is_taken_whole_and_says_so(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,))
    base_pipeline(made.bases, {**base_tensors(), "conv_in.bias": np.ones(4, "f4")})
    found = ready(made)
    ((name, why),) = found.whole
    assert name == "unet" and "conv_in.bias" in why and found.base is not None and "those that were trained" in found.base.source
    assert found.digest(Store(tmp_path / "home")) != ready(origin_run(tmp_path / "plain", (500,))).digest(Store(tmp_path / "home"))


def test_a_dump_whose_base_is_recorded_nowhere_finds_it_by_its_tensors(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,), logs=False)
    made.base.rename(made.bases / "under-another-name")
    other = base_pipeline(made.bases, {n: v + 1 for n, v in base_tensors().items()})
    base = ready(made, given=Answers(alpha=16.0)).base
    assert base is not None and (base.path.name, base.proof) == ("under-another-name", "tensors") and base.path != other


def test_a_base_of_the_recorded_name_below_the_runs_folder_is_used_where_a_dump_proves_it(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,))
    for file in made.outputs.rglob("hparams.yml"):
        file.write_text("lora_alpha: 16\npretrained_model_name_or_path: /gone/tiny-sd\n")
    below = made.outputs / "models"
    below.mkdir()
    made.base.rename(below / "tiny-sd")
    base = ready(made).base
    assert base is not None and (base.path, base.proof) == (below / "tiny-sd", "tensors")
    base_pipeline(below, {n: v + 1 for n, v in base_tensors().items()})
    with pytest.raises(NotFound, match="no base model"):  # another one of the same name is not
        ready(made)


def test_a_base_below_the_runs_folder_that_nothing_proves_is_named_with_how_to_use_it(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path / "d")
    recorded = str(scan([made.outputs]).runs[0].base_model)
    base_pipeline(made.outputs / "zoo of mine").rename(made.outputs / "zoo of mine" / recorded.rpartition("/")[2])
    with pytest.raises(NotFound) as fault:
        ready(made, tmp_path / "none", step=2)
    found = made.outputs / "zoo of mine"
    assert f"found at {found / recorded.rpartition('/')[2]}, below your runs folder; use --bases '{found}'" in fault.value.hint


def test_a_dump_in_bfloat16_is_compared_in_bfloat16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    half = {n: torch.from_numpy(v).to(torch.bfloat16) if ".lora_" not in n else torch.from_numpy(v) for n, v in wrapped_tensors(1).items()}
    save_file(half, tmp_path / "dump.safetensors")
    opened = open_weights(tmp_path / "dump.safetensors")
    base = base_pipeline(tmp_path)
    assert compare_with_base(opened, "unet", read_component(base, "unet")).proven
    name = "conv_out.bias"
    base_pipeline(tmp_path, {**base_tensors(), name: base_tensors()[name] * 1.5})
    assert compare_with_base(opened, "unet", read_component(base, "unet")).differing == (f"base_model.model.{name}",)


def test_a_tensor_of_another_shape_differs_and_minus_zero_is_not_zero(tmp_path: Path) -> None:
    opened = open_weights(save(tmp_path / "dump.safetensors", wrapped_tensors(1)))
    tensors = base_tensors()
    tensors["conv_in.bias"] = tensors["conv_in.bias"].reshape(2, 2)
    comparison = compare_with_base(opened, "unet", read_component(base_pipeline(tmp_path, tensors), "unet"))
    assert comparison.differing == ("base_model.model.conv_in.bias",) and not comparison.proven
    zero = {"conv_in.bias": np.zeros(4, "f4")}
    opened = open_weights(save(tmp_path / "zero.safetensors", {"conv_in.bias": -zero["conv_in.bias"]}))
    assert compare_with_base(opened, "unet", read_component(base_pipeline(tmp_path, zero), "unet")).differing == ("conv_in.bias",)


def test_a_base_compared_with_nothing_is_not_proven(tmp_path: Path) -> None:
    opened = open_weights(save(tmp_path / "none.safetensors", {"base_model.model.x.lora_A.weight": np.zeros((1, 1), "f4")}))
    comparison = compare_with_base(opened, "unet", read_component(base_pipeline(tmp_path), "unet"))
    assert not comparison.proven and not comparison.related


def test_a_bases_digest_depends_on_what_decides_the_picture_and_on_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    base = base_pipeline(tmp_path)
    (base / "unet" / "config.json").write_text("{}")
    first = digest_base(base, store)
    (base / "README.md").write_text("text")
    (base / ".hidden.json").write_text("{}")
    os.utime(base / "unet" / "config.json")
    assert digest_base(base, store) == first == digest_base(base, Store(tmp_path / "other"))
    (base / "unet" / "config.json").write_text("{ }")
    assert digest_base(base, store) != first


def test_a_component_that_is_a_link_to_another_folder_is_in_the_digest(tmp_path: Path) -> None:
    store, base = Store(tmp_path / "home"), base_pipeline(tmp_path)
    plain = digest_base(base, store)
    elsewhere = (base / "unet").rename(tmp_path / "elsewhere")
    (base / "unet").symlink_to(elsewhere)
    assert digest_base(base, store) == plain
    save(elsewhere / "diffusion_pytorch_model.safetensors", {"conv_in.bias": np.zeros(4, "f4")})
    assert digest_base(base, store) != plain


def test_folders_that_link_in_a_circle_are_read_once_and_two_links_to_one_folder_both_count(tmp_path: Path) -> None:
    base = base_pipeline(tmp_path)
    (base / "unet" / "again").symlink_to(base)
    (base / "itself").symlink_to(base, target_is_directory=True)
    (base / "vae").symlink_to(base / "unet", target_is_directory=True)
    (base / "lost").symlink_to(tmp_path / "nowhere")
    found = {file.relative_to(base).as_posix() for file in files_below(base)}
    assert found == {"model_index.json", *(f"{name}/diffusion_pytorch_model.safetensors" for name in ("unet", "vae"))}


@pytest.mark.parametrize("left", ["nothing", "a pickle", "a link to nowhere"])
def test_a_model_without_weights_that_can_be_read_is_refused_by_name(tmp_path: Path, left: str) -> None:
    base = base_pipeline(tmp_path)
    index = json.loads((base / "model_index.json").read_text())
    index |= {"vae": ["diffusers", "AutoencoderKL"], "tokenizer": ["transformers", "CLIPTokenizer"], "image_encoder": [None, None]}
    index |= {"scheduler": ["diffusers", "DDIMScheduler"], "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (base / "model_index.json").write_text(json.dumps(index))
    (base / "vae").mkdir()
    weights = base / "vae" / "diffusion_pytorch_model.safetensors"
    if left == "a pickle":
        weights.with_suffix(".bin").write_bytes(b"x")
    elif left == "a link to nowhere":
        weights.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused, match=r"no \.safetensors file of its vae"):
        digest_base(base, Store(tmp_path / "home"))
    weights.unlink(missing_ok=True)
    save(weights, {"conv_in.bias": np.zeros(4, "f4")})
    assert digest_base(base, Store(tmp_path / "home"))
