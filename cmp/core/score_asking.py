"""What is said to score pictures with: which models look, against which images, on whose pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from cmp.core.image_scores import CLIP, CMMD, DIVERSITY, IDENTITY, KINDS, LEAK, NEAREST, PREFERENCE
from cmp.core.measured import LOSS, UPDATE, MeasurePlan, MeasureSpec
from cmp.core.score_items import CELLS, SAMPLES
from cmp.errors import BadInput

BY_CLIP = (CLIP, CMMD)
BY_EITHER = (NEAREST, DIVERSITY, LEAK, IDENTITY)  # an image encoder goes before CLIP
OF_PROMPTS = (CLIP, PREFERENCE)  # they look at each picture's own prompt


@dataclass(frozen=True, slots=True)
class ScoreAnswers:
    """Models by folder or id; `reference` a folder of images; `subject` words that call up what was trained; `pictures` whose are scored.

    "" leaves it open.
    """

    clip: str = ""
    encoder: str = ""
    preference: str = ""
    reference: str = ""
    subject: str = ""
    pictures: str = ""

    def __post_init__(self) -> None:
        if self.pictures not in ("", CELLS, SAMPLES):
            raise BadInput(f"--pictures is {self.pictures!r}", f"Use {CELLS} (by grids) or {SAMPLES} (the trainer's own).")

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> ScoreAnswers:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in pairs if name in known})

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """As a MeasureSpec holds them."""
        return tuple((field.name, value) for field in fields(self) if (value := getattr(self, field.name)))

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.subject.split(",") if word.strip())

    def model_of(self, metric: str) -> str:
        """The name of the model that looks; raises BadInput where none was given."""
        if metric == PREFERENCE:
            found, asked = self.preference, "a preference model in CLIP's form, such as yuvalkirstain/PickScore_v1, as --preference"
        elif metric in BY_CLIP:
            found, asked = self.clip, "a CLIP model, such as openai/clip-vit-large-patch14, as --clip"
        else:
            found, asked = (
                self.encoder or self.clip,
                "an image encoder, such as facebook/dinov2-base, as --encoder, or a CLIP model as --clip",
            )
        if not found:
            raise BadInput(
                f"nothing says which model is to look for {metric}", f"Give {asked}: an id in the Hugging Face cache or a folder."
            )
        return found

    def reference_of(self, metric: str) -> Path:
        if not self.reference:
            what = "of the subject" if metric == IDENTITY else "that the pictures are to resemble"
            raise BadInput(f"nothing says what {metric} is to be measured against", f"Give a folder of images {what} as --reference.")
        return Path(self.reference).expanduser().absolute()


def parted(spec: MeasureSpec) -> tuple[MeasureSpec | None, MeasureSpec | None]:
    """The losses of a spec, and the metrics that are none; None for nothing. Raises BadInput for a metric that there is not."""
    if strange := [metric for metric in spec.metrics if metric not in (LOSS, *KINDS)]:
        raise BadInput(f"there is no metric {strange[0]!r}", f"Known are: {', '.join((LOSS, *KINDS))}.")
    others = tuple(dict.fromkeys(metric for metric in spec.metrics if metric != LOSS))
    losses = replace(spec, metrics=(LOSS,)) if LOSS in spec.metrics else None
    return losses, replace(spec, metrics=others) if others else None


def needs_pictures(metrics: Iterable[str]) -> tuple[str, ...]:
    """Those that look at pictures."""
    return tuple(metric for metric in metrics if metric in KINDS and metric != UPDATE)


def both_plans(one: MeasurePlan, other: MeasurePlan) -> MeasurePlan:
    """Two plans as one."""
    seconds = None if one.seconds is None or other.seconds is None else one.seconds + other.seconds
    return MeasurePlan(
        (*one.metrics, *other.metrics), one.total + other.total, one.new + other.new, (*one.items, *other.items), one.draws or other.draws,
        seconds, one.smallest or other.smallest, (*one.faults, *other.faults), (*one.told, *other.told),
    )  # fmt: skip
