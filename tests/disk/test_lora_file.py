"""Conversion to a LoRA file: exactly what was trained, proven against the base, or refused and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from cmp.core.conversion import Conversion
from cmp.disk.ready import Answers
from cmp.errors import NotFound, Refused
from tests.support import (
    MODULES,
    Training,
    adapter_tensors,
    base_pipeline,
    base_tensors,
    bench_of,
    convert,
    diffusers_run,
    left_in,
    origin_run,
    save,
    spoil,
    wrapped_tensors,
    write_config,
)

RUN = "lora_casual_shoes"


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path, (500,), final=False)


# what is written


def test_the_file_holds_a_as_it_is_and_b_times_two_exactly(made: Training) -> None:
    done = convert(made)
    written = load_file(done.output)
    trained = adapter_tensors(500)
    assert set(written) == {f"unet.{name}" for name in trained}
    for name, values in trained.items():
        expected = values * 2 if ".lora_B." in name else values
        assert written[f"unet.{name}"].tobytes() == expected.tobytes(), name
    assert done.output == made.run / "converted" / "lora" / f"{RUN}-500.safetensors"
    assert (done.read, done.applied) == (len(wrapped_tensors(500)), len(trained)) and len(done.left_out) == len(base_tensors())


def test_the_webui_file_has_kohyas_names_and_alpha_equal_to_rank(made: Training) -> None:
    written = load_file(convert(made, "webui").output)
    flat = {f"lora_unet_{m.replace('.', '_')}" for m in MODULES}
    assert set(written) == {f"{m}.{part}" for m in flat for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert all(written[f"{m}.alpha"] == 8 and written[f"{m}.alpha"].shape == () for m in flat)
    one = f"lora_unet_{MODULES[0].replace('.', '_')}"
    assert np.array_equal(written[f"{one}.lora_up.weight"], adapter_tensors(500)[f"{MODULES[0]}.lora_B.weight"] * 2)


def test_the_file_says_where_it_came_from_by_which_scale_and_which_proof(made: Training) -> None:
    done = convert(made)
    with safe_open(done.output, "np") as file:
        metadata = file.metadata()
    record = json.loads(metadata["cmp_conversion"])
    assert metadata["format"] == "pt" and metadata["generator"].startswith("cmp ")
    assert (record["checkpoint"], record["step"], record["form"], record["scale_folded"]) == (f"{RUN}@500", 500, "lora", True)
    assert (record["scale"]["value"], record["scale"]["alpha"], record["scale"]["rank"]) == (2.0, 16.0, 8)
    assert "hparams.yml" in record["scale"]["source"]
    assert (record["base"]["id"], record["base"]["proof"]) == ("tiny-sd", "tensors")
    assert f"all {len(base_tensors())} frozen tensors of unet equal" in done.checks[0] and done.checks[0] in record["checks"]


def test_half_precision_weights_are_written_as_the_same_values_in_single(made: Training) -> None:
    spoil(made, lambda tensors: tensors.update({n: v.astype("f2") for n, v in tensors.items() if ".lora_" in n}))
    written = load_file(convert(made).output)
    name = f"{MODULES[0]}.lora_B.weight"
    assert np.array_equal(written[f"unet.{name}"], adapter_tensors(500)[name].astype("f2").astype("f4") * 2)


def test_a_lora_of_diffusers_script_is_scaled_by_one_since_its_script_knows_no_alpha(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path)
    done = convert(made, target="sd-lora@2")
    assert done.scale is not None and done.scale.value == 1 and "alpha = rank" in done.scale.source
    assert (
        load_file(done.output)[f"unet.{MODULES[0]}.lora_B.weight"].tobytes()
        == adapter_tensors(2, 4)[f"{MODULES[0]}.lora_B.weight"].tobytes()
    )


# proof


def test_a_base_that_differs_in_one_bit_is_refused_and_the_tensor_is_named(made: Training) -> None:
    tensors = base_tensors()
    tensors["conv_out.bias"].view("u1")[0] ^= 1
    base_pipeline(made.bases, tensors)
    with pytest.raises(Refused, match=r"1 differ, for example base_model\.model\.conv_out\.bias"):
        convert(made)
    assert left_in(made) == []


def test_a_base_with_a_tensor_more_or_less_is_refused_and_the_tensor_is_named(made: Training) -> None:
    more = {**base_tensors(), "conv_norm_out.bias": np.zeros(4, "f4")}
    del more["conv_in.bias"]
    base_pipeline(made.bases, more)
    with pytest.raises(Refused, match=r"conv_in\.bias.*conv_norm_out\.bias"):
        convert(made)


@pytest.mark.parametrize("form", ["lora", "webui"])
def test_without_a_base_it_is_written_and_says_that_nothing_was_compared(made: Training, form: str) -> None:
    """Only where PEFT's own config says that nothing but the LoRA was trained."""
    shutil.rmtree(made.bases)
    write_config(made.run / "lora_weights")
    done = convert(made, form)
    assert any("NOT compared" in check for check in done.checks) and done.output.is_file()


@pytest.mark.parametrize("config", [None, {"rank": 4}, {"target_modules": ["to_q"]}, {"target_modules": "all-linear"}])
def test_without_a_base_and_a_config_of_this_adapter_the_base_is_asked_for(made: Training, config: dict[str, object] | None) -> None:
    """A dump may hold trained biases among its other tensors, and only the base can show that it does not."""
    shutil.rmtree(made.bases)
    if config is not None:
        write_config(made.run / "lora_weights", **config)
    for given in (Answers(), Answers(alpha=16.0)):
        with pytest.raises(NotFound, match="no base model") as refusal:
            convert(made, given=given)
        assert "--base" in (refusal.value.hint or "")
    assert not (made.run / "converted").exists()


def test_a_base_that_was_asked_for_and_is_not_there_is_not_found(made: Training) -> None:
    with pytest.raises(NotFound, match="other-base"):
        convert(made, given=Answers(base="other-base"))


def test_an_adapter_of_zeros_is_said_to_be_the_base_model(made: Training) -> None:
    spoil(made, lambda tensors: tensors.update({n: v * 0 for n, v in tensors.items() if ".lora_B." in n}))
    assert any("identical to the base model" in check for check in convert(made).checks)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])  # the last overflows when the scale is folded in
def test_weights_that_are_no_numbers_are_refused_and_named(made: Training, bad: float) -> None:
    name = f"base_model.model.{MODULES[2]}.lora_B.default.weight"
    spoil(made, lambda tensors: tensors[name].__setitem__((0, 0), bad))
    with pytest.raises(Refused, match=r"1 tensors hold NaN.*to_v\.lora_B"):
        convert(made)
    assert left_in(made) == []


def test_an_adapter_with_parts_beyond_pairs_is_refused_and_they_are_named(made: Training) -> None:
    name = f"base_model.model.{MODULES[0]}.lora_embedding_A.default"
    spoil(made, lambda tensors: tensors.update({name: np.ones(8, "f4")}))
    with pytest.raises(Refused, match="lora_embedding_A"):
        convert(made)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "corda", "loftq"])
def test_an_adapter_alone_whose_start_changed_the_base_is_refused_even_with_alpha_given(tmp_path: Path, start: str) -> None:
    made = origin_run(tmp_path)
    final = made.run / "lora_weights"
    save(final / "adapter_model.safetensors", {f"base_model.model.{n}": v for n, v in adapter_tensors(9).items()})
    for values in (True, "gaussian", start):
        write_config(final, init_lora_weights=values)
        for given in (Answers(), Answers(alpha=16.0)):
            if values == start:
                with pytest.raises(Refused, match=start):
                    bench_of(made).plan_conversion(str(final), "lora", given)
            else:
                assert bench_of(made).plan_conversion(str(final), "lora", given).scale is not None


def test_one_model_of_two_that_were_trained_together_does_not_pass_for_both(made: Training) -> None:
    save(made.checkpoint(500) / "model_1.safetensors", {"text_model.final_layer_norm.bias": np.zeros(8, "f4")})
    with pytest.raises(Refused, match=r"no LoRA file can carry its text_encoder.*final_layer_norm"):
        convert(made)


def test_an_unknown_alpha_is_refused_until_it_is_given_and_then_remembered(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500, 1000), logs=False, final=False)
    with pytest.raises(Refused, match="nothing says which alpha"):
        convert(made)
    bench = bench_of(made)
    given = Answers(alpha=4.0)
    done = bench.convert_all([bench.plan_conversion(f"{RUN}@500", "lora", given)], given)
    assert [c.scale.value for c in done if isinstance(c, Conversion) and c.scale] == [0.5]
    again = convert(made, target=f"{RUN}@1000")
    assert again.scale is not None and again.scale.value == 0.5


def test_a_config_copied_from_a_run_of_another_rank_is_refused(made: Training) -> None:
    write_config(made.checkpoint(500), rank=4, alpha=4)
    with pytest.raises(Refused, match="describes another adapter"):
        convert(made)
