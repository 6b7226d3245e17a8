"""A batch in several lanes: on a processor, each core computes its own pictures instead of all cores sharing every small operation.

Measured with a UNet of 2 M parameters on two cores, 16 pictures a batch: 0.083 s a picture in two lanes, 0.15 s with two threads an
operation. One picture alone, its two rows of guidance in a lane each: 0.022 s a step instead of 0.052 s; with 860 M parameters 2.18 s
instead of 1.98 s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from diffusers import UNet2DConditionModel

_SMALL = 100_000_000  # parameters; a larger model's weights, read by each lane, cost more than a lane for a single row saves

_here = threading.local()


def rows_here() -> slice:
    """Which rows of the batch the calling thread computes: all of them, but in a lane."""
    rows: slice = getattr(_here, "rows", slice(None))
    return rows


@contextmanager
def in_lanes(model: torch.nn.Module) -> Iterator[None]:
    """Has a UNet on a processor compute its batches in lanes meanwhile, one for each thread that torch may use. Leaves other models alone.

    Each picture's numbers come from a smaller batch then, so that they are equal but for rounding.
    """
    threads = torch.get_num_threads()
    if threads < 2 or not isinstance(model, UNet2DConditionModel) or model.device.type != "cpu":
        yield
        return
    forward = model.forward
    fewest = 1 if model.num_parameters() <= _SMALL else 2  # rows of a lane
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="lane", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            model.forward = lambda sample, *given, **named: _split(pool, threads, fewest, forward, (sample, *given), named)
            try:
                yield
            finally:
                del model.forward
    finally:
        torch.set_num_threads(threads)  # threads to come take over what was set last


def _split(
    pool: ThreadPoolExecutor, threads: int, fewest: int, forward: Callable[..., Any], given: tuple[Any, ...], named: Mapping[str, Any]
) -> Any:
    size = len(given[0])
    lanes = min(threads, size // fewest)
    if lanes < 2 or named.get("return_dict", True):
        return forward(*given, **named)
    ends = [size * number // lanes for number in range(lanes + 1)]
    parts = [slice(start, end) for start, end in pairwise(ends)]
    done = pool.map(lambda rows: _lane(forward, rows, _rows(given, rows, size), _rows(named, rows, size)), parts)
    return (torch.cat([found[0] for found in done]),)


def _lane(forward: Callable[..., Any], rows: slice, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    _here.rows = rows
    try:
        with torch.inference_mode():
            return forward(*given, **named)
    finally:
        del _here.rows


def _rows(value: Any, rows: slice, size: int) -> Any:
    """The lane's part of whatever comes for each row; what is one for all stays as it is."""
    if isinstance(value, torch.Tensor):
        return value[rows] if value.dim() and len(value) == size else value
    if isinstance(value, Mapping):
        return {name: _rows(inner, rows, size) for name, inner in value.items()}
    return tuple(_rows(inner, rows, size) for inner in value) if isinstance(value, tuple) else value
