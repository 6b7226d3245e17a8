"""The scale of an adapter: agreed on by every source, given by the user, or refused. Never assumed."""

from __future__ import annotations

import math

import pytest

from cmp.core.conversion import to_webui_name
from cmp.core.reading import read_weights
from cmp.core.scale import Evidence, parse_alpha, resolve_scale
from cmp.core.weights import Weights
from cmp.errors import BadInput, Refused
from tests.support import MODULES, WIDTH


def weights(rank: int = 8) -> Weights:
    halves = {f"unet.{m}.lora_A.weight": (rank, WIDTH) for m in MODULES} | {f"unet.{m}.lora_B.weight": (WIDTH, rank) for m in MODULES}
    return read_weights(halves)


TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
CONFIG = Evidence(16, 8, "lora_weights/adapter_config.json", TARGETS)
HPARAMS = Evidence(16, 8, "logs/hparams.yml")
BESIDE = Evidence(16, 8, "adapter_config.json", TARGETS, decisive=True)


def refusal(*evidence: Evidence, rank: int = 8) -> Refused:
    with pytest.raises(Refused) as fault:
        resolve_scale(weights(rank), evidence)
    return fault.value


def test_rank_8_with_alpha_16_is_a_scale_of_2_and_every_source_is_named() -> None:
    scale = resolve_scale(weights(), [CONFIG, HPARAMS])
    assert (scale.value, scale.alpha, scale.rank) == (2.0, 16.0, 8)
    assert CONFIG.source in scale.source and HPARAMS.source in scale.source


def test_sources_that_contradict_each_other_are_refused_and_both_named() -> None:
    fault = refusal(CONFIG, Evidence(8, 8, "logs/hparams.yml"))
    assert CONFIG.source in fault.message and "alpha 16" in fault.message
    assert "logs/hparams.yml" in fault.message and "alpha 8" in fault.message and "--alpha" in fault.hint


def test_an_unknown_alpha_is_refused_and_asked_for() -> None:
    fault = refusal()
    assert "rank 8" in fault.message and "--alpha" in fault.hint


def test_an_unknown_alpha_is_refused_where_the_only_source_means_an_adapter_of_another_rank_or_other_targets() -> None:
    assert "nothing says which alpha" in refusal(CONFIG, rank=4).message
    assert "nothing says which alpha" in refusal(Evidence(16, 8, "run.json", ("ff.net.0", "proj"))).message


def test_a_config_beside_the_weights_that_describes_another_rank_is_refused_by_name() -> None:
    fault = refusal(BESIDE, HPARAMS, rank=4)
    assert "adapter_config.json" in fault.message and "rank 8" in fault.message and "rank 4" in fault.message


@pytest.mark.parametrize("alpha", ["16", "16 or so", None, True, [16], "__import__('os')"])
def test_an_alpha_that_is_no_number_is_refused_and_quoted(alpha: object) -> None:
    assert repr(alpha) in refusal(Evidence(alpha, 8, "adapter_config.json", decisive=True)).message


@pytest.mark.parametrize("rank", [0, -8, 2.5, "8", True, math.inf, math.nan, [8]])
def test_a_rank_that_cannot_be_one_is_refused_and_quoted(rank: object) -> None:
    assert repr(rank) in refusal(Evidence(16, rank, "adapter_config.json", decisive=True)).message


@pytest.mark.parametrize("alpha", [0, -16, math.nan, math.inf, 10**400, 5e-324])
def test_an_alpha_that_no_scale_can_come_from_is_refused_whoever_says_it(alpha: float) -> None:
    with pytest.raises(BadInput):
        resolve_scale(weights(), [Evidence(alpha, 8, "adapter_config.json")])
    with pytest.raises(BadInput):
        resolve_scale(weights(), [], alpha)


def test_rslora_divides_by_the_root_of_the_rank_and_says_so() -> None:
    scale = resolve_scale(weights(), [Evidence(16, 8, "adapter_config.json", rslora=True)])
    assert scale.value == 16 / math.sqrt(8) and "rsLoRA" in scale.source


def test_the_same_alpha_with_and_without_rslora_is_a_contradiction() -> None:
    assert "contradict" in refusal(CONFIG, Evidence(16, 8, "hparams.yml", rslora=True)).message


def test_what_the_user_gives_decides_over_every_source() -> None:
    scale = resolve_scale(weights(), [CONFIG, Evidence("broken", 0, "hparams.yml")], 4.0)
    assert (scale.value, scale.source) == (0.5, "given by the user")


MIXED = {f"unet.{MODULES[0]}.lora_A.weight": (4, 8), f"unet.{MODULES[0]}.lora_B.weight": (8, 4)}
MIXED |= {f"unet.{MODULES[1]}.lora_A.weight": (8, 8), f"unet.{MODULES[1]}.lora_B.weight": (8, 8)}
KEYS = tuple(f"unet.{module}" for module in MODULES[:2])


def test_modules_of_different_ranks_have_a_scale_each() -> None:
    scale = resolve_scale(read_weights(MIXED), [], 16.0)
    assert [scale.of(key) for key in KEYS] == [4.0, 2.0]
    assert scale.as_json()["modules"] == dict(zip(KEYS, (4.0, 2.0), strict=True))


@pytest.mark.parametrize("pattern", ["to_q", MODULES[0], r".*attn1\.to_q", "to_q$"])
def test_pefts_patterns_give_the_modules_they_match_their_own_rank_and_alpha(pattern: str) -> None:
    config = Evidence(16, 8, "adapter_config.json", rank_pattern={pattern: 4}, alpha_pattern={pattern: 2}, decisive=True)
    scale = resolve_scale(read_weights(MIXED), [config])
    assert [scale.of(key) for key in KEYS] == [0.5, 2.0]
    assert "describes another adapter" in refusal_of(read_weights(MIXED), Evidence(16, 8, "adapter_config.json", decisive=True))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*", ".*.*.*x", "x" * 400, "("])
def test_a_pattern_that_could_run_for_ever_or_is_none_is_refused(pattern: str) -> None:
    told = refusal_of(read_weights(MIXED), Evidence(16, 8, "adapter_config.json", rank_pattern={pattern: 4}, decisive=True))
    assert "pattern" in told and pattern[:40] in told


def refusal_of(weights: Weights, *evidence: Evidence) -> str:
    with pytest.raises(Refused) as fault:
        resolve_scale(weights, evidence)
    return fault.value.message


def test_alpha_tensors_of_the_file_itself_count_module_by_module() -> None:
    scale = resolve_scale(read_weights(MIXED), [Evidence(None, None, "x.safetensors", alphas=dict(zip(KEYS, (1.0, 8.0), strict=True)))])
    assert [scale.of(key) for key in KEYS] == [0.25, 1.0] and scale.source == "x.safetensors"
    assert "nothing says which alpha" in refusal_of(read_weights(MIXED), Evidence(None, None, "x", alphas={KEYS[0]: 1.0}))


@pytest.mark.parametrize(("adapter", "value"), [("default", 2.0), ("", 1.0)])
def test_a_lokr_of_two_whole_factors_is_scaled_by_peft_and_not_by_lycoris(adapter: str, value: float) -> None:
    stem = f"base_model.model.{MODULES[0]}.lokr_w" if adapter else f"lora_unet_{MODULES[0].replace('.', '_')}.lokr_w"
    end = f".{adapter}" if adapter else ""
    weights = read_weights({f"{stem}1{end}": (2, 2), f"{stem}2{end}": (4, 4)})
    assert resolve_scale(weights, [Evidence(16, 8, "adapter_config.json")]).value == value


@pytest.mark.parametrize(("text", "alpha"), [("16", 16.0), ("0.5", 0.5), (8, 8.0), ("", None), (None, None)])
def test_a_typed_alpha_is_read(text: str | float | None, alpha: float | None) -> None:
    assert parse_alpha(text) == alpha


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf", "1e999", "16;"])
def test_a_typed_alpha_that_cannot_be_one_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="alpha"):
        parse_alpha(text)


def test_webui_names_are_kohyas_and_other_components_are_refused() -> None:
    assert to_webui_name("unet.down_blocks.0.attn1.to_out.0.lora_A.weight") == "lora_unet_down_blocks_0_attn1_to_out_0.lora_down.weight"
    assert to_webui_name("text_encoder.text_model.q_proj.lora_B.weight") == "lora_te_text_model_q_proj.lora_up.weight"
    with pytest.raises(Refused, match="transformer"):
        to_webui_name("transformer.blocks.0.lora_A.weight")
