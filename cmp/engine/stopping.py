"""Long calls into the libraries that can be left midway: torch itself looks, in each of its functions, whether anybody still waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from torch.overrides import TorchFunctionMode

from cmp.core.progress import Progress

T = TypeVar("T")

_MOMENT = 0.05  # seconds between two looks whether the call has ended


class _Left(BaseException):
    """Nobody waits any more. No library takes it for a fault that it could live with."""


class _Looking(TorchFunctionMode):
    """Ends what runs in this thread, at the next function of torch, once `left` is set."""

    def __init__(self, left: threading.Event) -> None:
        super().__init__()
        self.left = left

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if self.left.is_set():
            raise _Left
        return func(*args, **(kwargs or {}))


def stoppable(call: Callable[[], T], step: Progress) -> Generator[Progress, None, T]:
    """What `call` gives or raises, while `step` is yielded again and again. Who leaves early waits until the call has ended, which is soon:
    the libraries change classes of torch for a while, so that none of their calls may go on behind another one's back.
    """
    left = threading.Event()

    def carry_out() -> T:
        with _Looking(left):
            return call()

    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(carry_out)
        try:
            while not wait([ending], _MOMENT).done:
                yield step
        finally:
            left.set()
    return ending.result()
