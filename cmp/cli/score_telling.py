"""How measured values are told: each with what it is, and beside it what it is known not to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cmp.cli.output import print_table, say
from cmp.core.evidence import BASE
from cmp.core.image_scores import KINDS, limits_of
from cmp.core.measured import (
    LOSS,
    NAMES_NO_BEST,
    TRAINING_LOSS,
    UPDATE,
    UPDATE_RELATIVE,
    WHOLE,
    BandScore,
    Measured,
    evidence_of,
)

BY_BLOCK = (UPDATE, UPDATE_RELATIVE)
_TOGETHER = {LOSS: (LOSS, TRAINING_LOSS), UPDATE: (UPDATE, UPDATE_RELATIVE)}
_OF = {UPDATE_RELATIVE: UPDATE}


def only_asked(known: Mapping[str, tuple[Measured, ...]], metrics: Iterable[str]) -> dict[str, tuple[Measured, ...]]:
    """What is known of the metrics that were asked for."""
    wanted = [one for metric in metrics for one in _TOGETHER.get(metric, (metric,))]
    return {metric: known[metric] for metric in wanted if metric in known}


def heading(metric: str, found: Sequence[Measured]) -> str:
    """What is told above a metric's table."""
    kind = KINDS.get(_OF.get(metric, metric))
    if kind is None:
        return f"{metric}, as a share of the base model's:" if found[0].relative else f"{metric}:"
    told = f"{kind.told}, as a share of the norm of the base's weights" if metric == UPDATE_RELATIVE else kind.told
    better = "" if metric in NAMES_NO_BEST else f"; {'less' if kind.lower_is_better else 'more'} is better"
    return f"{metric}: {told}{better}"


def value_of(one: Measured) -> float:
    """One number of a result, as it is told when it comes."""
    return float(one.values[:, 0].mean() if one.bands[0] == WHOLE else one.values.mean())


def limits_json(metrics: Iterable[str]) -> dict[str, list[str]]:
    """By metric what its scores are known not to say."""
    return {metric: list(limits) for metric in metrics if (limits := limits_of(metric))}


def base_value(metric: str, found: Sequence[Measured]) -> float | None:
    """The base model's own score of a metric that is no share of it; None where there is none."""
    if metric not in KINDS or not any(one.checkpoint_id == BASE for one in found):
        return None
    known = evidence_of([one for one in found if one.checkpoint_id == BASE], [BASE], fewest=1)
    return float(known.values[0]) if known else None


def tell_blocks(bands: Mapping[str, Sequence[BandScore]], names: Sequence[str]) -> None:
    """The size of each block over the checkpoints."""
    names = [name for name in names if name in bands]
    blocks = [band.band for band in bands[names[0]] if band.band != WHOLE]
    values = {name: {band.band: band.value for band in bands[name]} for name in names}
    rows = [[block, *(f"{values[name].get(block, float('nan')):.3g}" for name in names)] for block in blocks]
    print_table(["block", *(name.rpartition("@")[2] for name in names)], rows, right=frozenset(range(1, len(names) + 1)))


def parts_json(metric: str, bands: Sequence[BandScore]) -> dict[str, object]:
    """A score's parts: by timestep, and of sizes by block."""
    if metric not in BY_BLOCK:
        return {"by_timestep": [band.as_json() for band in bands]}
    return {"by_timestep": [], "by_block": [{"block": band.band, "value": band.value} for band in bands if band.band != WHOLE]}


def in_full(name: str | None) -> str:
    """A model's name; of a folder that is there its whole path, since another process may take the work up again elsewhere."""
    place = Path(name).expanduser() if name else None
    return str(place.absolute()) if place and place.is_dir() else name or ""


def base_json(metric: str, one: Measured) -> dict[str, object]:
    """The base model's own value: its score, or its loss by timestep, which the shares are shares of."""
    if metric in KINDS:
        return {"value": base_value(metric, [one])}
    means = [float(value) for value in one.values.mean(axis=0)]
    levels = [
        {"timestep": int(band) if band.isdigit() else band, "value": mean if mean - mean == 0 else None}
        for band, mean in zip(one.bands, means, strict=True)
    ]
    return {"loss": levels}


def tell_bands(bands: Mapping[str, Sequence[BandScore]], names: Sequence[str]) -> None:
    heads = [f"t {band.band}" for band in next(iter(bands.values()))]
    rows = [[name, *(f"{band.value:.3f}" for band in bands[name])] for name in names if name in bands]
    print_table(["by timestep", *heads], rows, right=frozenset(range(1, len(heads) + 1)))


def tell_limits(metric: str) -> None:
    for text in limits_of(metric):
        say(f"  limit: {text}")
