"""The models held in memory, and what is known of the machine they are drawn with."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cmp.core.stacking import Folded
from cmp.engine.device import choose_device, choose_dtype, circumstances
from cmp.engine.loading import import_classes
from cmp.engine.pipeline import WornPipeline
from cmp.engine.steps import Report, silent

Rounded = tuple[tuple[str, str], ...]  # components whose frozen weights were rounded for training, each with the type
MOST_KEPT = {
    "exact": 0,
    "fast": 512_000_000,
}  # bytes of adapters that are kept beside the one in use; a batch needs several again and again


@dataclass(slots=True)
class Studio:
    """At most one base, since two seldom fit, and the adapters read last. Owned by the workbench, used under its lock."""

    device_name: str
    loading: threading.Lock = field(default_factory=threading.Lock, repr=False)  # held by whoever imports parts of the libraries
    _folder: Path | None = None
    _digest: str = ""
    _rounded: Rounded = ()
    _worn: WornPipeline | None = field(default=None, repr=False)
    _adapters: OrderedDict[str, Folded] = field(default_factory=OrderedDict, repr=False)
    _sent: dict[str, Folded] = field(default_factory=dict, repr=False)
    _vae: tuple[str, torch.nn.Module] | None = field(default=None, repr=False)
    _threads: tuple[int, ThreadPoolExecutor] | None = field(default=None, repr=False)  # and the process that they belong to
    most_kept: int = 0
    loading_took: float = 0.0  # seconds
    most_at_once: dict[str, int] = field(default_factory=dict)  # pictures that fit into memory, by kind of batch, where it ran out once

    @property
    def device(self) -> torch.device:
        return choose_device(self.device_name)

    @property
    def threads(self) -> ThreadPoolExecutor:
        """The one thread in which all is computed: torch has cuDNN plan each convolution and attention anew in every other thread.

        A process that was forked has none of its parent's threads, and gets one of its own.
        """
        if self._threads is None or self._threads[0] != os.getpid():
            self._threads = os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="drawing")
        return self._threads[1]

    def pipeline(self, folder: Path, digest: str = "", rounded: Rounded = (), report: Report = silent) -> WornPipeline:
        """The pipeline of this base, loaded if it is not the one at hand; `loading_took` says how long."""
        began = time.monotonic()
        if self._worn is None or (self._folder, self._digest, self._rounded) != (folder, digest, rounded):
            self.forget()  # lets the old one go before the new one comes
            with self.loading:
                import_classes(folder)
            self._worn = WornPipeline(folder, self.device, rounded, report)
            self._folder, self._digest, self._rounded = folder, digest, rounded
        self.loading_took = time.monotonic() - began
        return self._worn

    def adapter(self, digest: str, read: Callable[[], Folded]) -> Folded:
        """The adapter of this digest, read if it is not among those read last. Nobody can write to its arrays.

        torch would use them as a model's own memory, and the next checkpoint that is copied into the model would then change this one.
        """
        if digest in self._sent:
            return self._sent[digest]
        if digest not in self._adapters:
            while sum(v.nbytes for folded in self._adapters.values() for v in folded.values()) > self.most_kept:
                self._adapters.popitem(last=False)
            self._adapters[digest] = found = read()
            _protect(found)
        self._adapters.move_to_end(digest)
        return self._adapters[digest]

    def take_sent(self, adapters: Mapping[str, Folded]) -> None:
        """Has these, which another process has read, at hand in the place of those that it sent before."""
        self._sent = dict(adapters)
        for folded in self._sent.values():
            _protect(folded)

    def vae(self, digest: str, load: Callable[[], torch.nn.Module]) -> torch.nn.Module:
        """The VAE of this digest, loaded if it is not the one that was used last beside a base's own."""
        if self._vae is None or self._vae[0] != digest:
            self._vae = None
            self._vae = (digest, load())
        return self._vae[1]

    def forget(self) -> None:
        self._vae = None
        self._worn, self._folder, self._digest = None, None, ""

    @property
    def loaded(self) -> list[str]:
        """The names of the base models in memory."""
        return [self._folder.name] if self._folder else []

    def circumstances(self, base: Path | None = None) -> dict[str, str]:
        """What changes pixels that are drawn with this base, or with a usual one, on this machine; see `device.circumstances`."""
        return circumstances(self.device, choose_dtype(self.device, base))


def _protect(folded: Folded) -> None:
    for values in folded.values():
        values.flags.writeable = False
