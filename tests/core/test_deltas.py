"""The formulas of every adapter, written out by hand in loops, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from cmp.core.deltas import apply_delta, check_delta, fixed_scale, rank_of
from cmp.errors import Refused

Shapes = dict[str, tuple[int, ...]]
OUT, IN, K, R = 6, 4, 3, 2
LINEAR, CONV = (OUT, IN), (OUT, IN, K, K)
DOWN, UP = {"down": (R, IN)}, {"up": (OUT, R)}
TUCKER = {"down": (R, IN, 1, 1), "up": (OUT, R, 1, 1), "mid": (R, R, K, K)}
LOHA = {"w1_a": (OUT, R), "w1_b": (R, IN), "w2_a": (OUT, R), "w2_b": (R, IN)}
LOHA_TUCKER = {"w1_a": (R, OUT), "w1_b": (R, IN), "t1": (R, R, K, K), "w2_a": (R, OUT), "w2_b": (R, IN), "t2": (R, R, K, K)}
LOKR = {"w1": (2, 2), "w2": (3, 2)}
LOKR_CONV = {"w1": (2, 2), "w2_a": (3, 1), "w2_b": (1, 2 * K * K)}


def made(shapes: Mapping[str, tuple[int, ...]], seed: int = 1) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed)
    return {role: noise.normal(size=shape).astype(np.float32) for role, shape in shapes.items()}


def base(shape: tuple[int, ...]) -> np.ndarray:
    return made({"base": shape}, seed=2)["base"]


def close(got: np.ndarray, wanted: np.ndarray) -> bool:
    return got.dtype == np.float32 and got.shape == wanted.shape and float(np.abs(got - wanted).max()) <= 1e-6


def tucker(core: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """out, in, kh, kw from core (i, j, kh, kw), left (i, out) and right (j, in), one number at a time."""
    result = np.zeros((left.shape[1], right.shape[1], *core.shape[2:]))
    for o, n, i, j in itertools.product(*map(range, (left.shape[1], right.shape[1], *core.shape[:2]))):
        result[o, n] += core[i, j] * left[i, o] * right[j, n]
    return result


def test_a_lora_is_up_times_down_times_scale() -> None:
    parts, weight = made(DOWN | UP), base(LINEAR)
    wanted = weight + 1.5 * np.array(
        [[sum(parts["up"][o, r] * parts["down"][r, i] for r in range(R)) for i in range(IN)] for o in range(OUT)]
    )
    assert close(apply_delta("lora", parts, 1.5, weight), wanted)


def test_a_lora_of_a_convolution_has_its_kernel_in_the_first_half() -> None:
    parts, weight = made({"down": (R, IN, K, K), "up": (OUT, R, 1, 1)}), base(CONV)
    wanted = weight + 0.5 * np.einsum("or,rixy->oixy", parts["up"][:, :, 0, 0], parts["down"])
    assert close(apply_delta("lora", parts, 0.5, weight), wanted)


def test_a_middle_part_contracts_its_first_axis_with_up_and_its_second_with_down() -> None:
    parts, weight = made(TUCKER), base(CONV)
    wanted = weight + tucker(parts["mid"], parts["up"][:, :, 0, 0].T, parts["down"][:, :, 0, 0])
    assert close(apply_delta("lora", parts, 1.0, weight), wanted)


def test_a_linear_lora_fits_the_same_layer_stored_as_a_1x1_convolution() -> None:
    parts = made(DOWN | UP)
    as_conv = apply_delta("lora", parts, 1.0, base((OUT, IN, 1, 1)))
    assert close(as_conv[:, :, 0, 0], apply_delta("lora", parts, 1.0, base((OUT, IN, 1, 1))[:, :, 0, 0]))


def test_a_loha_is_the_elementwise_product_of_two_products() -> None:
    parts, weight = made(LOHA), base(LINEAR)
    assert close(apply_delta("loha", parts, 2.0, weight), weight + 2 * (parts["w1_a"] @ parts["w1_b"]) * (parts["w2_a"] @ parts["w2_b"]))
    parts, weight = made(LOHA | {"w1_b": (R, IN * K * K), "w2_b": (R, IN * K * K)}), base(CONV)
    flat = (parts["w1_a"] @ parts["w1_b"]) * (parts["w2_a"] @ parts["w2_b"])
    assert close(apply_delta("loha", parts, 2.0, weight), weight + 2 * flat.reshape(CONV))


def test_a_loha_with_cores_stores_both_factors_rank_first() -> None:
    parts, weight = made(LOHA_TUCKER), base(CONV)
    halves = (tucker(parts[f"t{n}"], parts[f"w{n}_a"], parts[f"w{n}_b"]) for n in (1, 2))
    assert close(apply_delta("loha", parts, 0.5, weight), weight + 0.5 * np.prod(list(halves), axis=0))


def test_a_lokr_is_the_kronecker_product_block_by_block() -> None:
    parts, weight = made(LOKR), base(LINEAR)
    wanted = weight.copy()
    for a, b in itertools.product(range(2), range(2)):
        wanted[3 * a : 3 * a + 3, 2 * b : 2 * b + 2] += parts["w1"][a, b] * parts["w2"]
    assert close(apply_delta("lokr", parts, 1.0, weight), wanted)


@pytest.mark.parametrize(
    "second", [{"w2": (3, 2, K, K)}, {"w2_a": (3, 1), "w2_b": (1, 2 * K * K)}, {"w2_a": (1, 3), "w2_b": (1, 2), "t2": (1, 1, K, K)}]
)
@pytest.mark.parametrize("first", [{"w1": (2, 2)}, {"w1_a": (2, 1), "w1_b": (1, 2)}])
def test_every_form_of_a_lokr_convolution_multiplies_the_same_two_factors(first: Shapes, second: Shapes) -> None:
    parts, weight = made(first | second), base(CONV)
    w1 = parts["w1"] if "w1" in parts else parts["w1_a"] @ parts["w1_b"]
    if "t2" in parts:
        w2 = tucker(parts["t2"], parts["w2_a"], parts["w2_b"])
    else:
        w2 = parts["w2"] if "w2" in parts else (parts["w2_a"] @ parts["w2_b"]).reshape(3, 2, K, K)
    wanted = weight.astype(np.float64)
    for a, b in itertools.product(range(2), range(2)):
        wanted[3 * a : 3 * a + 3, 2 * b : 2 * b + 2] += 0.25 * w1[a, b] * w2
    assert close(apply_delta("lokr", parts, 0.25, weight), wanted)


def test_a_full_difference_is_added_whatever_the_layer() -> None:
    for shape in (LINEAR, CONV, (OUT,)):
        parts, weight = made({"diff": shape}), base(shape)
        assert close(apply_delta("full", parts, 1.0, weight), weight + parts["diff"])


@pytest.mark.parametrize("shape", [{"magnitude": (OUT,)}, {"magnitude": (1, OUT, 1, 1)}, {"dora_scale": (OUT, 1, 1, 1)}])
def test_dora_gives_every_output_the_length_that_was_trained(shape: Shapes) -> None:
    parts = made({"down": (R, IN, K, K), "up": (OUT, R, 1, 1), **shape})
    (role,) = shape
    parts[role] = np.abs(parts[role]) + 0.5
    merged = apply_delta("lora", parts, 2.0, base(CONV))
    assert np.allclose(np.sqrt((merged.astype(np.float64) ** 2).sum(axis=(1, 2, 3))), parts[role].reshape(-1), atol=1e-6)
    plain = apply_delta("lora", {"down": parts["down"], "up": parts["up"]}, 2.0, base(CONV))
    assert np.allclose(merged / plain, (merged / plain)[:, :1, :1, :1], atol=1e-5), "only lengths change"


@pytest.mark.parametrize("method, shapes", [("lora", DOWN | UP), ("loha", LOHA), ("lokr", LOKR)])
def test_a_dora_scale_laid_along_the_inputs_normalises_columns(method: str, shapes: Shapes) -> None:
    parts = made(shapes | {"dora_scale": (1, IN)})
    parts["dora_scale"] = np.abs(parts["dora_scale"]) + 0.5
    merged = apply_delta(method, parts, 1.0, base(LINEAR)).astype(np.float64)
    assert np.allclose(np.sqrt((merged**2).sum(axis=0)), parts["dora_scale"][0], atol=1e-6)


def test_a_square_layer_shows_by_the_shape_which_axis_was_meant() -> None:
    parts = made({"down": (R, 4), "up": (4, R)})
    lengths = np.array([1, 2, 3, 4], np.float32)
    rows = apply_delta("lora", parts | {"dora_scale": lengths[:, None]}, 1.0, base((4, 4)))
    columns = apply_delta("lora", parts | {"dora_scale": lengths[None]}, 1.0, base((4, 4)))
    assert np.allclose(np.linalg.norm(rows, axis=1), lengths, atol=1e-6) and np.allclose(
        np.linalg.norm(columns, axis=0), lengths, atol=1e-6
    )


@pytest.mark.parametrize("extra", [{}, {"magnitude": (OUT,)}, {"dora_scale": (OUT, 1)}])
def test_strength_goes_in_a_straight_line_from_the_base_to_the_trained_weight(extra: Shapes) -> None:
    parts, weight = made(DOWN | UP | extra), base(LINEAR)
    trained = apply_delta("lora", parts, 2.0, weight)
    assert np.array_equal(apply_delta("lora", parts, 2.0, weight, strength=0.0), weight)
    assert close(apply_delta("lora", parts, 2.0, weight, strength=0.5), (weight + trained) / 2)
    assert close(apply_delta("lora", parts, 2.0, weight, strength=-1.0), 2 * weight - trained)


def test_nothing_given_is_changed_and_half_precision_is_computed_as_float32() -> None:
    parts, weight = made(DOWN | UP), base(LINEAR)
    before = {role: part.copy() for role, part in parts.items()}, weight.copy()
    apply_delta("lora", parts, 2.0, weight)
    assert all(np.array_equal(parts[role], before[0][role]) for role in parts) and np.array_equal(weight, before[1])
    half = {role: part.astype(np.float16) for role, part in parts.items()}
    assert close(apply_delta("lora", half, 1.0, weight), weight + half["up"].astype(np.float32) @ half["down"].astype(np.float32))


def test_nan_and_overflow_are_handed_on_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    parts, weight = made(DOWN | UP | {"magnitude": (OUT,)}), base(LINEAR)
    parts["up"][0, 0] = np.nan
    parts["up"][1, 0] = 3e38
    merged = apply_delta("lora", parts, 10.0, weight)
    assert np.isnan(merged[0]).all() and not np.isfinite(merged[1]).all() and np.isfinite(merged[2:]).all() and not recwarn.list


@pytest.mark.parametrize(
    "method, shapes, rank",
    [
        ("lora", DOWN | UP, R),
        ("lora", TUCKER, R),
        ("loha", LOHA, R),
        ("loha", LOHA_TUCKER, R),
        ("lokr", {"w1": (2, 2), "w2_a": (1, 3), "w2_b": (1, 2), "t2": (1, 1, K, K)}, 1),
        ("lokr", {"w1_a": (4, R), "w1_b": (R, 4), "w2": (8, 8)}, R),
        ("lokr", LOKR, 0),
        ("full", {"diff": LINEAR}, 0),
    ],
)
def test_the_rank_is_read_off_the_axis_that_holds_it_in_that_form(method: str, shapes: Shapes, rank: int) -> None:
    assert rank_of(method, shapes) == rank


def test_only_a_lokr_of_two_whole_factors_has_a_fixed_scale_and_not_with_peft() -> None:
    assert fixed_scale("lokr", ["w1", "w2", "dora_scale"], "lycoris") == fixed_scale("full", ["diff"], "lycoris") == 1.0
    assert fixed_scale("lokr", ["w1", "w2"], "peft") is None
    assert fixed_scale("lokr", ["w1", "w2_a", "w2_b"], "lycoris") is None
    assert fixed_scale("lora", ["down", "up"], "kohya") is None and fixed_scale("loha", LOHA, "lycoris") is None


@pytest.mark.parametrize(
    "method, shapes, told",
    [
        ("lora", DOWN, r"up is missing among down \[2, 4\]"),
        ("lora", {"down": (R, IN), "up": (OUT, 3)}, r"down \[2, 4\] · up \[6, 3\] cannot be multiplied"),
        ("lora", TUCKER | {"mid": (3, R, K, K)}, r"mid \[3, 2, 3, 3\]"),
        ("lora", DOWN | {"up": (OUT, R, 3, 3)}, "cannot be multiplied"),
        ("lora", DOWN | UP | {"diff": LINEAR}, "diff is no part of a lora"),
        ("loha", LOHA | {"w2_a": (OUT, 3), "w2_b": (3, IN)}, "ranks 2, 3"),
        ("loha", {r: s for r, s in LOHA_TUCKER.items() if r != "t2"}, "one half"),
        ("lokr", LOKR | {"w1_a": (2, 1), "w1_b": (1, 2)}, "w1 is no part"),
        ("lokr", {"w1": (2, 2)}, "w2_a, w2_b is missing"),
        ("lokr", LOKR_CONV | {"w1_a": (2, 1)}, "w1_b is missing"),
        ("full", {}, "diff is missing"),
        ("lora", {"down": (0, IN), "up": (OUT, 0)}, r"\[0, 4\]"),
    ],
)
def test_parts_that_contradict_each_other_are_refused_with_their_shapes(method: str, shapes: Shapes, told: str) -> None:
    with pytest.raises(Refused, match=told):
        rank_of(method, shapes)
    with pytest.raises(Refused, match=told):
        check_delta(method, shapes, LINEAR, "mid_block.to_q")


@pytest.mark.parametrize(
    "method, shapes, shape",
    [
        ("lora", DOWN | UP, (OUT, IN + 1)),
        ("lora", DOWN | UP, (IN, OUT)),
        ("lora", {"down": (R, IN * K * K), "up": (OUT, R)}, CONV),
        ("lora", DOWN | UP | {"magnitude": (IN,)}, LINEAR),
        ("lora", DOWN | UP | {"dora_scale": (OUT,)}, LINEAR),
        ("lora", DOWN | UP | {"dora_scale": (IN, 1)}, LINEAR),
        ("lora", DOWN | UP | {"dora_scale": (OUT, 1), "magnitude": (OUT,)}, LINEAR),
        ("loha", LOHA, CONV),
        ("loha", LOHA | {"w2_b": (R, IN + 1)}, LINEAR),
        ("lokr", LOKR_CONV, (OUT, IN, K, K + 1)),
        ("lokr", {"w1": (2, 2), "w2": (3, 2, 3)}, (OUT, IN, 3)),
        ("full", {"diff": LINEAR}, CONV),
        ("full", {"diff": LINEAR}, (OUT,)),
    ],
)
def test_parts_for_another_layer_are_refused_with_the_modules_name_and_both_shapes(
    method: str, shapes: Shapes, shape: tuple[int, ...]
) -> None:
    with pytest.raises(Refused) as told:
        check_delta(method, shapes, shape, "mid_block.to_q")
    assert f"mid_block.to_q is {list(shape)}" in told.value.message and told.value.message.count("[") >= 2
    with pytest.raises(Refused):
        apply_delta(method, made(shapes), 1.0, base(shape))
