"""What is used of a checkpoint is all that was trained, at the scale that all sources agree on; anything else is refused by name."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from cmp.core.conversion import FORMS
from cmp.core.progress import run_through
from cmp.disk.checkpoint import open_weights
from cmp.disk.ready import Answers, digest_of
from cmp.disk.tensors import identify, read_header, read_tensors
from cmp.errors import NotFound, Refused, Unreadable
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import (
    BASE_NAME,
    MODULES,
    NOW,
    Training,
    adapter_tensors,
    base_tensors,
    bench_of,
    convert,
    diffusers_run,
    left_in,
    origin_run,
    save,
    write_config,
    write_log,
)

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
RUN = "lora_casual_shoes"
WEIGHTS = "pytorch_lora_weights.safetensors"
TEXT = {"text_model.embeddings.token_embedding.weight": np.ones((4, 8), "f4"), "text_model.final_layer_norm.bias": np.zeros(8, "f4")}


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path, (500,), final=False)


def real(case: str, tmp_path: Path, bases: bool = True) -> Workbench:
    """A bench over a run that Accelerate and PEFT wrote, trained on a miniature of Stable Diffusion."""
    outputs = Path(shutil.copytree(CORPUS / case / "outputs", tmp_path / "outputs"))
    return Workbench(Settings(tmp_path / "home", (outputs,), (CORPUS / "bases",) if bases else ()))


def refused_in_every_form(bench: Workbench, target: str, match: str, *answers: Answers) -> None:
    for form in FORMS:
        for given in (Answers(), Answers(alpha=16.0), *answers):
            with pytest.raises(Refused, match=match):
                bench.plan_conversion(target, form, given)


# everything that was trained


Q = "text_model.encoder.layers.0.self_attn.q_proj"
TEXT_LORA = {f"base_model.model.{Q}.lora_{half}.weight": np.ones((8, 8), "f4") for half in "AB"}
OWN = ["model.safetensors", "adapter_model.safetensors", "unet/adapter_model.safetensors", WEIGHTS]


def with_own(made: Training, own: str) -> Path:
    """A checkpoint whose UNet lies in a file called `own`."""
    folder = made.checkpoint(500)
    if own != "model.safetensors":
        (folder / "model.safetensors").unlink()
        prefix = "unet." if own == WEIGHTS else "base_model.model."
        save(folder / own, {f"{prefix}{name}": values for name, values in adapter_tensors(500).items()})
    return folder


@pytest.mark.parametrize("more", ["text_encoder/adapter_model.safetensors", "text_encoder/model.safetensors"])
@pytest.mark.parametrize("own", OWN)
def test_a_text_encoder_trained_beside_the_unet_is_part_of_the_checkpoint(made: Training, more: str, own: str) -> None:
    folder = with_own(made, own)
    save(folder / more, TEXT_LORA if "adapter" in more else TEXT)
    checkpoint = bench_of(made).library().run(RUN).checkpoint("500")
    assert checkpoint.flaw is None and [file.name for file in checkpoint.files] == [Path(own).name, Path(more).name]
    weights = open_weights(*checkpoint.files).weights
    assert weights.components == ("unet", "text_encoder") and len(weights.of("unet").adapted) == len(MODULES)
    text = weights.of("text_encoder")
    assert len(text.adapted) == 1 if "adapter" in more else set(text.plain_of("text_encoder").values()) == set(TEXT)


@pytest.mark.parametrize("own", ["adapter_model.safetensors", WEIGHTS])
def test_a_dump_beside_a_small_file_that_holds_another_model_is_named_as_left_out(made: Training, own: str) -> None:
    folder = with_own(made, own)
    save(folder / "model_1.safetensors", TEXT_LORA)
    bench = bench_of(made)
    flaw = bench.library().run(RUN).checkpoint("500").flaw
    assert flaw and "model_1.safetensors" in flaw and "text_encoder" in flaw
    refused_in_every_form(bench, f"{RUN}@500", r"model_1\.safetensors")


def test_two_models_trained_together_are_one_checkpoint_as_step_and_as_final(tmp_path: Path) -> None:
    bench = real("acc_peft_two_models", tmp_path)
    assert [c.key for c in bench.library().run("RUN").checkpoints] == ["2"]  # the final has the same weights
    plan = bench.plan_conversion("RUN@final", "lora")
    assert plan.weights.components == ("unet", "text_encoder") and plan.scale and plan.scale.value == 2
    done = run_through(bench.convert(plan))
    with safe_open(done.output, "np") as file:
        assert {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118 == {"unet", "text_encoder"}


def with_text_encoder(folder: Path, change: float = 0.0, start: str = "text_model.") -> None:
    changed = {name.replace("text_model.", start): values + np.float32(change) for name, values in TEXT.items()}
    save(folder / "text_encoder" / "model.safetensors", changed)


def final_pipeline(made: Training, lora: bool) -> Path:
    """What `save_pretrained` of a whole pipeline leaves in the end, of a full fine-tune or of a UNet that PEFT has wrapped."""
    final = made.run / "final_pipeline"
    if lora:
        save(final / "unet" / "adapter_model.safetensors", {f"base_model.model.{n}": v for n, v in adapter_tensors(9).items()})
        write_config(final / "unet")
    else:
        save(final / "unet" / "diffusion_pytorch_model.safetensors", {name: values * 2 for name, values in base_tensors().items()})
    shutil.copy(made.base / "model_index.json", final)
    return final


FINALS = [("pipeline", False), ("pipeline", True), ("lora", True)]


@pytest.mark.parametrize(("form", "lora"), FINALS)
def test_a_pipeline_whose_text_encoder_is_the_bases_is_used(made: Training, form: str, lora: bool) -> None:
    with_text_encoder(final_pipeline(made, lora))
    for start in ("text_model.", ""):  # some versions of transformers write this part of the names, others do not
        with_text_encoder(made.base, start=start)
        assert bench_of(made).plan_conversion(f"{RUN}@final", form).weights.layout == ("peft-adapter" if lora else "full")


def test_an_adapter_in_a_pipeline_whose_text_encoder_was_trained_too_is_refused_and_the_tensor_is_named(made: Training) -> None:
    with_text_encoder(final_pipeline(made, lora=True), 0.5)
    with_text_encoder(made.base)
    for form in FORMS:
        with pytest.raises(Refused, match=r"text_encoder too: text_model\.(embeddings\.token_embedding|final_layer_norm)"):
            bench_of(made).plan_conversion(f"{RUN}@final", form)
    shutil.rmtree(made.bases)
    with pytest.raises(NotFound, match="no base model"):
        bench_of(made).plan_conversion(f"{RUN}@final", "lora")


def test_a_pipeline_trained_whole_brings_its_own_text_encoder_and_needs_no_other_base(made: Training) -> None:
    with_text_encoder(final_pipeline(made, lora=False), 0.5)
    with_text_encoder(made.base)
    plan = bench_of(made).plan_conversion(f"{RUN}@final", "pipeline")
    assert plan.weights.components == ("unet", "text_encoder") and plan.base and plan.base.id == BASE_NAME
    shutil.rmtree(made.bases)
    plan = bench_of(made).plan_conversion(f"{RUN}@final", "pipeline")
    assert plan.base and plan.base.path == made.run / "final_pipeline"


# adapters that are more than pairs of matrices


@pytest.mark.parametrize(
    ("key", "value"),
    [("bias", "all"), ("bias", "lora_only"), ("modules_to_save", ["conv_out"])]
    + [("init_lora_weights", start) for start in ("pissa", "pissa_niter_4", "olora", "loftq")],
)
def test_a_config_that_says_more_was_changed_forbids_a_lora_whatever_alpha_is_given(tmp_path: Path, key: str, value: object) -> None:
    made = origin_run(tmp_path, (500,))
    write_config(made.run / "lora_weights", **{key: value})
    refused_in_every_form(bench_of(made), f"{RUN}@final", key)  # the adapter alone does not hold it
    for form in ("lora", "webui"):
        with pytest.raises(Refused, match="more than LoRA pairs"):
            bench_of(made).plan_conversion(f"{RUN}@500", form, Answers(alpha=16.0))
    assert bench_of(made).plan_conversion(f"{RUN}@500", "pipeline").whole == ("unet",)  # the dump does
    harmless = {"bias": "none", "modules_to_save": None, "init_lora_weights": "gaussian"}
    write_config(made.run / "lora_weights", **{key: harmless.get(key)})
    assert bench_of(made).plan_conversion(f"{RUN}@500", "lora").scale is not None


@pytest.mark.parametrize(("key", "value"), [("kasa_config", {"beta": 1}), ("fan_in_fan_out", True)])
def test_a_config_of_a_kind_that_is_not_computed_here_is_refused_in_every_form(tmp_path: Path, key: str, value: object) -> None:
    made = origin_run(tmp_path, (500,))
    write_config(made.run / "lora_weights", **{key: value})
    for target in (f"{RUN}@final", f"{RUN}@500"):
        refused_in_every_form(bench_of(made), target, key)


def test_biases_that_peft_trained_reach_the_pipeline_and_forbid_a_lora(tmp_path: Path) -> None:
    bench = real("acc_peft_bias_all", tmp_path)
    for target in ("RUN@2", "RUN@final"):
        for form in ("lora", "webui"):
            with pytest.raises(Refused, match="no LoRA file can carry its unet"):
                bench.plan_conversion(target, form)
    with pytest.raises(NotFound, match="base"):
        real("acc_peft_bias_all", tmp_path / "alone", bases=False).plan_conversion("RUN@2", "lora", Answers(alpha=8.0))


# scale


def test_an_alpha_that_is_given_is_still_that_of_an_rslora(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,), logs=False)
    write_config(made.run / "lora_weights", rank=8, alpha=4, use_rslora=True)
    for target in (f"{RUN}@final", f"{RUN}@500"):
        plan = bench_of(made).plan_conversion(target, "lora", Answers(alpha=16.0, base=BASE_NAME))
        assert plan.scale is not None and plan.scale.value == 16 / math.sqrt(8) and "rsLoRA" in plan.scale.source


def test_a_run_that_was_restarted_with_another_alpha_is_refused_and_both_are_named(made: Training) -> None:
    tracker = made.outputs.parent / "logs" / f"train_{RUN}"
    first = next(tracker.glob("*/hparams.yml"))
    second = tracker / f"{NOW + 3600}.25" / "hparams.yml"
    second.parent.mkdir()
    second.write_text(first.read_text().replace("lora_alpha: 16", "lora_alpha: 8"))
    with pytest.raises(Refused) as refusal:
        convert(made)
    for file, alpha in ((first, 16), (second, 8)):
        assert f"{file.parent.name}/hparams.yml says alpha {alpha} " in refusal.value.message
    assert left_in(made) == []
    chosen = convert(made, given=Answers(alpha=16.0))
    assert chosen.scale is not None and chosen.scale.value == 2


def test_a_rank_that_is_logged_says_alpha_only_in_the_log_of_diffusers_own_script(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path)
    plan = bench_of(made).plan_conversion("sd-lora@2", "lora")
    assert plan.scale is not None and (plan.scale.value, plan.scale.alpha) == (1, 4) and "alpha = rank" in plan.scale.source
    shutil.rmtree(made.run / "logs")
    write_log(made.run / "logs" / "own-script", [(1, 0.5)], rank=4, output_dir="outputs/sd-lora", pretrained_model_name_or_path=BASE_NAME)
    with pytest.raises(Refused, match="nothing says which alpha"):
        bench_of(made).plan_conversion("sd-lora@2", "lora")


def test_remembered_alpha_does_not_outvote_the_files(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,))
    bench = bench_of(made)
    run, _ = bench.find(RUN)
    bench.answer(run, Answers(alpha=4.0))
    plan = bench.plan_conversion(f"{RUN}@500", "lora")
    assert plan.scale is not None and plan.scale.value == 2 and "hparams.yml" in plan.scale.source
    shutil.rmtree(made.run / "lora_weights")
    shutil.rmtree(made.outputs.parent / "logs")
    silent = bench_of(made).plan_conversion(f"{RUN}@500", "lora", Answers(base=BASE_NAME))
    assert silent.scale is not None and silent.scale.value == 0.5


def header_of(**alphas: int) -> dict[str, str]:
    """What diffusers writes of each component's adapter into the header."""
    told = {key: value for name, alpha in alphas.items() for key, value in ((f"{name}.r", 4), (f"{name}.lora_alpha", alpha))}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(told)}


@pytest.mark.parametrize("logs", [True, False])
def test_a_final_with_the_same_weights_at_another_scale_is_its_own_row(tmp_path: Path, logs: bool) -> None:
    made = diffusers_run(tmp_path)
    last = {f"unet.{name}": values for name, values in adapter_tensors(4, 4).items()}
    if not logs:
        shutil.rmtree(made.run / "logs")
        save(made.run / "checkpoint-4" / WEIGHTS, last, header_of(unet=4))
    for alpha, keys in ((4, ["2", "4"]), (16, ["2", "4", "final"])):
        save(made.run / WEIGHTS, last, header_of(unet=alpha))
        assert [c.key for c in bench_of(made).library().run("sd-lora").checkpoints] == keys, alpha


def test_a_header_that_is_silent_about_one_component_is_refused(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path, (2,), final=False)
    shutil.rmtree(made.run / "logs")
    pairs = {f"unet.{name}": values for name, values in adapter_tensors(2, 4).items()}
    pairs |= {f"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_{half}.weight": np.ones((4, 4), "f4") for half in "AB"}

    def scale(**alphas: int) -> float | None:
        save(made.run / "checkpoint-2" / WEIGHTS, pairs, header_of(**alphas))
        plan = bench_of(made).plan_conversion("sd-lora@2", "lora")
        assert plan.scale and plan.scale.of(f"text_encoder.{Q}") == alphas["text_encoder"] / 4
        return plan.scale.value

    with pytest.raises(Refused, match="nothing of the alpha of text_encoder"):
        scale(unet=8)
    mixed = scale(unet=8, text_encoder=4)  # two components may differ
    assert mixed == 2
    assert scale(unet=8, text_encoder=8) == 2


# files that are not what they were taken for


@pytest.mark.parametrize("read", [lambda made: convert(made), lambda made: bench_of(made).plan_conversion(f"{RUN}@500", "pipeline")])
def test_a_base_component_in_two_forms_is_refused(made: Training, read: Callable[[Training], object]) -> None:
    unet = made.base / "unet"
    index = {"weight_map": dict.fromkeys(base_tensors(), "shard.safetensors")}
    save(unet / "shard.safetensors", {name: values * 2 for name, values in base_tensors().items()})
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Unreadable, match=r"holds both .*index\.json"):
        read(made)
    (unet / "diffusion_pytorch_model.safetensors.index.json").unlink()
    read(made)


def test_a_file_rewritten_in_place_under_its_old_time_is_noticed(made: Training) -> None:
    file, store = made.checkpoint(500) / "model.safetensors", bench_of(made).store
    before, opened = os.stat(file), open_weights(file)
    digest = digest_of(opened, store)
    content = bytearray(file.read_bytes())
    content[opened.header.tensors[f"base_model.model.{MODULES[0]}.lora_B.default.weight"].start] ^= 1
    time.sleep(0.05)  # the clock of the file system ticks coarsely
    with open(file, "r+b") as same:
        same.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = os.stat(file)
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert identify(file) != opened.header.identity
    with pytest.raises(Unreadable, match="changed since"):
        list(read_tensors(opened.header, opened.weights.canonical))
    assert digest_of(open_weights(file), store) != digest and read_header(file).shapes == opened.header.shapes


def test_a_config_beside_loose_files_does_not_speak_for_one_of_another_name(tmp_path: Path) -> None:
    file = save(tmp_path / "loras" / "style.safetensors", {f"unet.{name}": values for name, values in adapter_tensors(3).items()})
    write_config(file.parent, alpha=64)
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "loras",), ()))
    with pytest.raises(Refused, match="nothing says which alpha"):
        bench.plan_conversion(str(file), "lora")


def test_what_was_trained_on_a_quantised_base_becomes_a_lora_and_no_merge(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,))
    file = made.checkpoint(500) / "model.safetensors"
    layer = f"base_model.model.{MODULES[0]}.base_layer.weight"
    save(
        file,
        {**load_file(file), layer: np.zeros((32, 1), "u1"), f"{layer}.absmax": np.ones(4, "f4"), f"{layer}.quant_map": np.ones(16, "f4")},
    )
    bench = bench_of(made)
    done = run_through(bench.convert(bench.plan_conversion(f"{RUN}@500", "lora")))
    assert done.read == done.applied + len(done.left_out) and "quantised" in {item.why for item in done.left_out}.pop()
    for form in ("pipeline", "single"):
        with pytest.raises(Refused, match="quantised base"):
            bench.plan_conversion(f"{RUN}@500", form)
    shutil.rmtree(made.run / "lora_weights")
    shutil.rmtree(made.bases)
    with pytest.raises(NotFound):  # nothing says that only the pairs were trained
        bench_of(made).plan_conversion(f"{RUN}@500", "lora", Answers(alpha=16.0))


def test_kohyas_names_without_any_alpha_mean_alpha_equal_to_rank_and_the_source_says_so(tmp_path: Path) -> None:
    flat = {f"lora_unet_{module.replace('.', '_')}": module for module in MODULES}
    state = {f"{stem}.lora_{way}.weight": np.ones((4, 8) if way == "down" else (8, 4), "f4") for stem in flat for way in ("down", "up")}
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "loras",), ()))
    file = save(tmp_path / "loras" / "old.safetensors", state)
    plan = bench.plan_conversion(str(file), "lora")
    assert plan.scale is not None and plan.scale.value == 1 and "without any alpha" in plan.scale.source
    save(file, {**state, f"{next(iter(flat))}.alpha": np.array(2, "f4")})
    with pytest.raises(Refused, match="nothing says which alpha"):  # one that has it says nothing of the others
        bench.plan_conversion(str(file), "lora")
