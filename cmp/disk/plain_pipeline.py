"""Whole diffusers pipelines that nothing of a training lies beside: base models, as a rule, that lie among the runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cmp.core.runs import Run, plain_text
from cmp.disk.converted import is_ours, read_record

KIND = "whole diffusers pipeline: a base model, or a full fine-tune"
_INDEX = "model_index.json"


def is_plain_pipeline(run: Run) -> bool:
    """Whether all there is of a run is a pipeline with full weights. One with an adapter in it was trained, and so was one with logs."""
    alone = len(run.checkpoints) == 1 and not run.logs and not run.samples and run.series is None
    final = run.checkpoints[0] if alone else None
    return final is not None and final.key == "final" and final.holds == "full" and os.path.isfile(run.folder / _INDEX)


def told_as_pipeline(run: Run) -> Run:
    """The run, with what it really is as a warning where it is nothing but a pipeline."""
    if not is_plain_pipeline(run):
        return run
    told = "this is a whole diffusers pipeline and no training: where it is a base model, --bases takes its folder from the list"
    if is_ours(run.folder):
        source = plain_text(str(read_record(run.folder).get("checkpoint"))[:200])
        told = f"this is the pipeline that was made of {source}, and no training run"
    return replace(run, warnings=(*run.warnings, told))


def places_below(root: Path, bases: Iterable[Path]) -> tuple[Path, ...]:
    """Under which of a root's folders pipelines are base models: those that lie in `bases`, in the root's own spelling."""
    real, found = Path(os.path.realpath(root)), []
    for base in map(Path, map(os.path.realpath, bases)):
        if base.is_relative_to(real):
            found.append(root / base.relative_to(real))
        elif real.is_relative_to(base):
            found.append(root)
    return tuple(found)
