"""The draws are fixed: by the image alone, evenly over the timesteps, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.draws import BANDS, Draws, timesteps
from cmp.errors import BadInput

ROUND = {"device": "cpu"}
PLACES = [0.005342398443313558, 0.11965760155668645]
NOISE = [0.4080008566379547, -0.11887840926647186, -0.7837442755699158]


@given(draws=st.integers(1, 200), seed=st.integers(0, 5), image=st.text(max_size=8))
def test_every_band_and_every_part_of_it_has_one_draw(draws: int, seed: int, image: str) -> None:
    one = Draws(draws, seed)
    places = one.places(image)
    assert places.shape == (one.bands, one.each) and one.total >= draws and one.total - draws < one.bands <= BANDS
    flat = np.sort(places.ravel())
    assert (flat >= 0).all() and (flat < 1).all()
    assert (np.floor(flat * one.total) - np.arange(one.total) <= 1e-6).all() and (np.diff(places, axis=1) >= 0).all()


def test_what_grows_evenly_in_a_band_has_its_mean_to_rounding() -> None:
    for image in "abcdef":
        places = Draws(16).places(image)
        assert np.allclose(places.mean(axis=1), (np.arange(BANDS) + 0.5) / BANDS)


def test_noise_and_places_depend_on_the_image_and_the_draw_alone() -> None:
    one = Draws(16)
    assert np.array_equal(one.noise("a", 3, 1, (4, 8, 8)), Draws(16).noise("a", 3, 1, (4, 8, 8)))
    seen = {
        Draws(16, seed).noise(image, band, number, (2, 2)).tobytes()
        for seed in (0, 1)
        for image in "ab"
        for band in (0, 1)
        for number in (0, 1)
    }
    assert len(seen) == 16
    assert not np.array_equal(one.places("a"), one.places("b")) and not np.array_equal(one.places("a"), Draws(16, 1).places("a"))
    noise = one.noise("a", 0, 0, (4, 64, 64))
    assert noise.dtype == np.float32 and abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03


def test_the_first_draw_is_what_it_always_was() -> None:
    """So that no change of library or code goes unseen: values of other draws must not be compared with those that are kept."""
    assert Draws(16).places("a")[0].tolist() == pytest.approx(PLACES, abs=0) and Draws(16).noise("a", 0, 0, (3,)).tolist() == NOISE


def test_the_setup_tells_images_captions_draws_and_circumstances_apart() -> None:
    images = [("d1", "a shoe"), ("d2", "")]
    setups = [
        Draws(16).setup(images, ROUND), Draws(24).setup(images, ROUND), Draws(16, 1).setup(images, ROUND),
        Draws(16).setup(images[:1], ROUND), Draws(16).setup([("d1", "a boot"), ("d2", "")], ROUND),
        Draws(16).setup(images, {"device": "cuda"}), Draws(16).setup([("d1", "a lone \ud800"), ("d2", "")], ROUND),
    ]  # fmt: skip
    assert len(set(setups)) == len(setups) and Draws(15).setup(images, ROUND) == setups[0]


def test_timesteps_reach_from_the_first_to_the_last() -> None:
    assert timesteps(np.array([0.0, 0.5, np.nextafter(1.0, 0.0)]), 1000).tolist() == [0, 500, 999]
    assert Draws(16).labels(1000)[:2] == ("62", "188") and Draws(2).labels(1000) == ("250", "750")


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"draws": 10**6}, {"seed": -1}])
def test_draws_that_there_cannot_be_are_quoted(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=str(next(iter(wrong.values())))):
        Draws(**wrong)
