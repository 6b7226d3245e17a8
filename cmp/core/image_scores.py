"""Scores of pictures from their embeddings, each with its direction and what it is known not to say.

Embeddings are rows of any length; they are brought to the length 1 here. What is of one picture comes as one value a picture. CMMD is of
a whole set and comes as the jackknife pseudo-values of its pictures: their mean is CMMD itself, and they scatter as it does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmp.core.curves import Floats
from cmp.core.evidence import Evidence
from cmp.core.measured import UPDATE, UPDATE_RELATIVE

CLIP, CMMD, NEAREST, DIVERSITY = "clip", "cmmd", "nearest", "diversity"
LEAK, IDENTITY, PREFERENCE = "leak", "identity", "preference"
NEAR = 0.97  # cosine from which on two pictures of one prompt count as near-duplicates
FEWEST_CMMD = 3  # pictures; a jackknife of fewer has nothing to leave out
SIGMA, CMMD_SCALE = 10.0, 1000.0  # Jayasumana et al. 2024, arXiv 2401.09603
_DRAWS = 1000
_BLOCK = 1024  # rows of a kernel matrix that are held at once
_ONE_MODEL = "scores of another model, or of other prompts and seeds, are no scores to compare with these"


@dataclass(frozen=True, slots=True)
class Kind:
    """A metric: whether less of it is better, what it is, and its `limits`, which stand beside every score."""

    metric: str
    lower_is_better: bool
    told: str
    limits: tuple[str, ...]


_OF_THESE = "the interval is over the pictures that were looked at: of other prompts it says nothing"
KINDS: Mapping[str, Kind] = {
    kind.metric: kind
    for kind in (
        Kind(CLIP, False, "how well each picture fits its prompt in a CLIP model's eyes (100 × their cosine)", (
            "from about 30 to 39 on more does not mean better: a model at 33 can beat one at 36, and single prompts swing from 14 to 39 "
            "(SimpleTuner's CLIP_SCORES.md)",
            "a CLIP model does not know learned words: what a prompt calls by one is not looked for", _ONE_MODEL, _OF_THESE,
        )),
        Kind(CMMD, True, "how unlike the reference images the pictures are as a whole, in CLIP's eyes (1000 × squared MMD, Gaussian)", (
            "it needs many pictures and many references: what few of them are worth, the interval says",
            "it is the unbiased estimate, which may be below zero where both sets look alike; the published code gives the biased one, "
            "which is larger the fewer pictures there are (Jayasumana et al. 2024, arXiv 2401.09603)",
            "the interval is for these reference images: with others it would lie elsewhere", _ONE_MODEL,
        )),
        Kind(NEAREST, True, "how near each picture comes to a training image (its cosine to the nearest)", (
            "less is farther from the training images: near ones may be copies, or may show the subject as it was asked for", _ONE_MODEL,
            _OF_THESE,
        )),
        Kind(DIVERSITY, False, "how unlike each other pictures of one prompt with different seeds are (1 − their mean cosine)", (
            "it says how unlike each other pictures are, not how good: noise is diverse too",
            "each prompt counts once, so that fewer than 5 prompts tell nothing apart", _ONE_MODEL,
        )),
        Kind(LEAK, True, "how far pictures without the subject have moved from the base model's (1 − their cosine)", (
            "less is nearer to the base model; a change that was wanted, as of a style, counts as leak too", _ONE_MODEL, _OF_THESE,
        )),
        Kind(IDENTITY, False, "how much each picture shows the subject of the reference images (mean cosine)", (
            "DINO-like encoders are the usual ones for this (DreamBooth); CLIP sees what kind of thing it is rather than which one",
            "it rises as the references' background and pose are copied too: look at it beside diversity and nearest",
            _ONE_MODEL, _OF_THESE,
        )),
        Kind(PREFERENCE, False, "how much the model's users would prefer the picture, for its own prompt", (
            "PickScore's choice between two pictures is its users' in 70.2 % of pairs; that of other people is in 68.0 %, of CLIP-H in "
            "60.8 %, of an aesthetics model in 56.8 % (Kirstain et al. 2023, arXiv 2305.01569); of other models it is not known here",
            "it was trained on pictures of other base models and knows nothing of your subject", _ONE_MODEL, _OF_THESE,
        )),
        Kind(UPDATE, True, "how far training has moved the weights (Frobenius norm of the change)", (
            "it says how far the weights have moved, not whether that was for the better: it names no best",
        )),
    )
}  # fmt: skip


def limits_of(metric: str) -> tuple[str, ...]:
    """What scores by a metric are known not to say; nothing of a metric that is none of these."""
    kind = KINDS.get(UPDATE if metric == UPDATE_RELATIVE else metric)
    return kind.limits if kind else ()


def with_limits(found: Evidence) -> Evidence:
    """The same evidence with the limits of its metric beside it."""
    return replace(found, warnings=(*found.warnings, *limits_of(found.metric)))


def unit(rows: Floats) -> Floats:
    """The same rows with the length 1; a row of zeros, which has no direction, becomes NaN."""
    rows = np.asarray(rows, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


# -- of one picture each ---------------------------------------------------------------------------------------------------


def clip_scores(pictures: Floats, own: Floats) -> Floats:
    """(n,): 100 × the cosine of each picture with its own prompt; both are (n, width)."""
    return 100.0 * _own_cosines(pictures, own)


def preference_scores(pictures: Floats, own: Floats, logit_scale: float) -> Floats:
    """(n,): the same cosines times the model's own factor exp(`logit_scale`); a difference d is preferred with 1 / (1 + exp(−d))."""
    return math.exp(logit_scale) * _own_cosines(pictures, own)


def leak_scores(pictures: Floats, bases: Floats) -> Floats:
    """(n,): how far each picture is from the base model's of the same prompt and seed."""
    return 1.0 - _own_cosines(pictures, bases)


def identity_scores(pictures: Floats, references: Floats) -> Floats:
    """(n,): the mean cosine of each picture to all references."""
    found: Floats = (unit(pictures) @ unit(references).T).mean(axis=1)
    return found


def nearest_scores(pictures: Floats, training: Floats) -> tuple[Floats, tuple[int, ...]]:
    """(n,): the cosine of each picture to the nearest training image, and which one that is."""
    cosines = unit(pictures) @ unit(training).T
    found: Floats = cosines.max(axis=1)
    return found, tuple(map(int, cosines.argmax(axis=1)))


def usual_nearness(training: Floats) -> float | None:
    """The median cosine of training images to the nearest of the others; None for fewer than two."""
    if len(training) < 2:
        return None
    cosines = unit(training) @ unit(training).T
    np.fill_diagonal(cosines, -np.inf)
    return float(np.median(cosines.max(axis=1)))


def _own_cosines(one: Floats, other: Floats) -> Floats:
    if one.shape != other.shape:
        raise ValueError(f"{one.shape} embeddings and {other.shape} that belong to them")
    found: Floats = (unit(one) * unit(other)).sum(axis=1)
    return found


# -- across seeds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """How unlike each other the pictures of one group are; `near` are the pairs of near-duplicates by their places, with their cosine."""

    group: str
    value: float
    near: tuple[tuple[int, int, float], ...]
    pairs: int


def diversity(pictures: Floats, groups: Sequence[str], near: float = NEAR) -> tuple[Spread, ...]:
    """1 − the mean cosine of all pairs within each group (the pictures of one prompt); groups of one picture are left out."""
    rows, found = unit(pictures), []
    for group in dict.fromkeys(groups):
        places = [i for i, own in enumerate(groups) if own == group]
        if len(places) < 2:
            continue
        cosines = rows[places] @ rows[places].T
        ends = [(i, j) for i in range(len(places)) for j in range(i)]
        values = np.array([cosines[i, j] for i, j in ends])
        alike = [(places[j], places[i], float(cosines[i, j])) for i, j in ends if cosines[i, j] >= near]
        found.append(Spread(group, float(1.0 - values.mean()), tuple(sorted(alike)), len(ends)))
    return tuple(found)


# -- of two sets -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Reference images as CMMD needs them, computed once for all that is held against them.

    `among` is the mean kernel between two of them, `weights` how often each was drawn in each of the bootstrap's draws, `drawn` their
    mean kernel in these.
    """

    rows: Floats
    among: float
    weights: Floats
    drawn: Floats


def reference_set(references: Floats, seed: int = 0) -> References:
    """The references (at least 2) made ready."""
    rows = unit(references)
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} references are too few")
    weights = _drawn_weights(len(rows), seed)
    among = (float(sum_rows(rows, rows).sum()) - len(rows)) / (len(rows) * (len(rows) - 1))
    return References(rows, among, weights, _within(rows, weights))


def cmmd_items(pictures: Floats, references: References) -> Floats:
    """(n,): the jackknife pseudo-values of CMMD, whose mean it is; `pictures` are at least FEWEST_CMMD."""
    x, n = unit(pictures), len(pictures)
    if n < FEWEST_CMMD:
        raise ValueError(f"{n} pictures are too few")
    own = sum_rows(x, x) - 1.0  # each row without the picture itself
    total, across = float(own.sum()), sum_rows(x, references.rows) / len(references.rows)
    found: Floats = CMMD_SCALE * (total / (n - 1) - (total - 2 * own) / (n - 2) - 2 * across + references.among)
    return found


def cmmd_interval(pictures: Floats, references: References, seed: int = 1) -> tuple[float, float]:
    """Where CMMD lies at 95 % where both sets are taken as drawn by chance: by a bootstrap of both.

    A pair of a picture with itself, which drawing anew makes, counts nothing: it would make every set look closer together than it is.
    """
    x, y = unit(pictures), references.rows
    weights = _drawn_weights(len(x), seed)
    across = _weighed(x, y, weights, references.weights) / (len(x) * len(y))
    low, high = np.nanquantile(CMMD_SCALE * (_within(x, weights) + references.drawn - 2 * across), [0.025, 0.975])
    return float(low), float(high)


def _drawn_weights(count: int, seed: int) -> Floats:
    """(draws, count): how often each row is drawn."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _DRAWS).astype(np.float64)


def _within(rows: Floats, weights: Floats) -> Floats:
    """Of each draw the mean of the kernel over all pairs of different rows; NaN where one row was drawn alone."""
    same = np.square(weights).sum(axis=1)
    pairs = len(rows) ** 2 - same
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (_weighed(rows, rows, weights, weights) - same) / np.where(pairs > 0, pairs, np.nan)
    return found


def _weighed(x: Floats, y: Floats, of_x: Floats, of_y: Floats) -> Floats:
    found = np.zeros(len(of_x))
    for part, kernel in _kernels(x, y):
        found += ((of_x[:, part] @ kernel) * of_y).sum(axis=1)
    return found


def sum_rows(x: Floats, y: Floats) -> Floats:
    """Of each row of `x` the sum of the kernel over all rows of `y`."""
    return np.concatenate([kernel.sum(axis=1) for _, kernel in _kernels(x, y)])


def _kernels(x: Floats, y: Floats) -> Iterator[tuple[slice, Floats]]:
    """The Gaussian kernel of rows of the length 1, a few rows at a time."""
    for at in range(0, len(x), _BLOCK):
        part = slice(at, at + _BLOCK)
        yield part, np.exp(-(1.0 - x[part] @ y.T) / SIGMA**2)  # ‖x − y‖² = 2 − 2 x·y


# -- prompts ---------------------------------------------------------------------------------------------------------------


def names_any(prompt: str, words: Iterable[str]) -> bool:
    """Whether one of these words or phrases stands in a prompt, as whole words and in any case."""
    return any(re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", prompt, re.IGNORECASE) for word in words if word.strip())
