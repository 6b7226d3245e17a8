"""A look at something that takes long, in a thread of its own: nothing is drawn or changed, so it need not wait for its turn as jobs do."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import closing
from typing import Generic, TypeVar

from cmp.core.progress import Progress
from cmp.errors import Cancelled, CmpError

T = TypeVar("T")


class Survey(Generic[T]):
    """How far a look has come; once it is `over`, its `value` or its `error`. All may be read from any thread."""

    def __init__(self, work: Generator[Progress, None, T]) -> None:
        self.progress = Progress(0, 0, "beginning")
        self.value: T | None = None
        self.error: CmpError | None = None
        self._over, self._stopped = threading.Event(), threading.Event()
        threading.Thread(target=self._run, args=(work,), name="cmp-survey", daemon=True).start()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it is over after so long at most."""
        return self._over.wait(seconds)

    def stop(self) -> None:
        """Nobody waits for it any more: it ends at its next step."""
        self._stopped.set()

    def _run(self, work: Generator[Progress, None, T]) -> None:
        # stands unless something better is known: a fault of ours goes to standard error with its traceback
        error: CmpError | None = CmpError("the program failed while looking", "The traceback is where the server was started.")
        try:
            with closing(work):
                while not self._stopped.is_set():
                    self.progress = next(work)
            error = Cancelled("nobody waits for it any more", "Ask again.")
        except StopIteration as finished:
            self.value, error = finished.value, None
        except CmpError as fault:
            error = fault
        finally:
            self.error = error
            self._over.set()
