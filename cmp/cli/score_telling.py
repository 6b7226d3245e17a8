"""How measured values are told: each with what it is, and beside it what it is known not to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cmp.cli.output import print_table, say
from cmp.core.image_scores import limits_of
from cmp.core.measured import NAMES_NO_BEST, UPDATE_RELATIVE, WHOLE, BandScore, Measured
from cmp.core.measured_told import kind_of


def heading(metric: str, found: Sequence[Measured]) -> str:
    """What is told above a metric's table."""
    kind = kind_of(metric)
    if kind is None:
        return f"{metric}, as a share of the base model's:" if found[0].relative else f"{metric}:"
    told = f"{kind.told}, as a share of the norm of the base's weights" if metric == UPDATE_RELATIVE else kind.told
    better = "" if metric in NAMES_NO_BEST else f"; {'less' if kind.lower_is_better else 'more'} is better"
    return f"{metric}: {told}{better}"


def value_of(one: Measured) -> float:
    """One number of a result, as it is told when it comes."""
    return float(one.values[:, 0].mean() if one.bands[0] == WHOLE else one.values.mean())


def tell_blocks(bands: Mapping[str, Sequence[BandScore]], names: Sequence[str]) -> None:
    """The size of each block over the checkpoints."""
    names = [name for name in names if name in bands]
    blocks = [band.band for band in bands[names[0]] if band.band != WHOLE]
    values = {name: {band.band: band.value for band in bands[name]} for name in names}
    rows = [[block, *(f"{values[name].get(block, float('nan')):.3g}" for name in names)] for block in blocks]
    print_table(["block", *(name.rpartition("@")[2] for name in names)], rows, right=frozenset(range(1, len(names) + 1)))


def tell_bands(bands: Mapping[str, Sequence[BandScore]], names: Sequence[str]) -> None:
    heads = [f"t {band.band}" for band in next(iter(bands.values()))]
    rows = [[name, *(f"{band.value:.3f}" for band in bands[name])] for name in names if name in bands]
    print_table(["by timestep", *heads], rows, right=frozenset(range(1, len(heads) + 1)))


def tell_limits(metric: str) -> None:
    for text in limits_of(metric):
        say(f"  limit: {text}")
