"""Spreads the cells of a grid over a Ray cluster, one worker per GPU or else per processor; the only module that knows Ray.

A worker is a process that opens its own Drawing over the same store, and keeps the base in memory until the grid is over. It draws a few
cells at a time and tells its steps and tiles as they come. Whoever leaves the grid ends the workers, in the middle of a step.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cmp import __version__
from cmp.core.cluster_address import LOCAL, local_workers
from cmp.core.grids import Cell, Fault, Tile
from cmp.core.progress import Progress
from cmp.core.shares import TRIES, Shares, in_order
from cmp.engine.draw import Drawing, Steps, in_passes
from cmp.errors import BadInput, CmpError, NotFound, Refused

_PATIENCE = 5.0  # seconds in which a cluster answers
_LOOK = 0.5  # seconds after which whoever waits for workers may leave
_FALLS = 3  # workers that may fail to come up
_MOST_LOCAL = 4  # workers on the processors of this machine unless more are asked for: each holds the base model
_ROOM = 100_000_000  # bytes that a Ray of our own may keep objects in; ours are small
_ROOT = str(Path(__file__).resolve().parents[2])

# Gives the drawing of a worker from its device, and from the name of its machine where that is not the one that asks; may raise CmpError.
Opens = Callable[[str, str | None], Drawing]


def ray_library() -> Any:
    """Ray; raises BadInput where it is not installed."""
    try:
        import ray
        import ray.exceptions
    except ImportError as fault:
        raise BadInput(f"Ray cannot be used: {fault}", "Install it with `pip install -r requirements-ray.txt`.") from fault
    return ray


def check_address(address: str) -> int | None:
    """As `local_workers`; raises BadInput also where Ray is not installed."""
    ray_library()
    return local_workers(address)


class Worker:
    """What runs in a process of the cluster."""

    def __init__(self, opens: Opens, asker: str, threads: int) -> None:
        self._opens, self._asker, self._threads = opens, asker, threads
        self._drawing: Drawing | None = None

    def open(self) -> dict[str, str] | CmpError:
        """Gets ready to draw; gives what changes pixels besides weights and settings, or what stands against drawing here."""
        ray = ray_library()
        on_gpu = bool(ray.get_gpu_ids())
        if not on_gpu:
            torch.set_num_threads(self._threads)
        at_home = ray.get_runtime_context().get_node_id() == self._asker
        machine = None if at_home else f"{socket.gethostname()}-{ray.util.get_node_ip_address()}"
        try:
            self._drawing = self._opens("cuda" if on_gpu else "cpu", machine)
            return self._drawing.studio.circumstances() | {"cmp": __version__}
        except CmpError as fault:
            return fault

    def draw(self, cells: Sequence[Cell], preview: bool) -> Steps:
        """One tile per cell, and the steps between."""
        assert self._drawing is not None
        yield from self._drawing.draw_pass(cells, preview)


@dataclass(slots=True)
class _Hand:
    """A worker as it is seen from here: `coming` is what it was asked for last, `cells` are those it has in hand."""

    number: int
    actor: Any
    coming: Any
    open: bool = False
    cells: dict[Cell, None] = field(default_factory=dict)


@dataclass(slots=True)
class Spreading:
    """One grid on its way through a cluster."""

    address: str
    opens: Opens
    device: str  # "auto", "cpu" or a CUDA device, as for a drawing of this process
    environment: Mapping[str, str]
    exact: bool
    total: int = 0
    done: int = 0
    _most: int = 1
    _processors: int = 1  # that a worker takes
    _on_gpu: bool = False
    _started: int = 0
    _fell: int = 0  # workers that did not come up
    _alike: dict[str, str] = field(default_factory=dict)
    _hands: list[_Hand] = field(default_factory=list)
    _shares: Shares = field(default_factory=Shares)

    def draw(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """As Drawing.draw, but tiles come in the order in which workers finish them."""
        with _connected(self.address, 0 if self.device == "cpu" else None, self._threads):
            self._count_places()
            try:
                yield from in_passes(self, cells, preview)
            finally:
                self._end()

    @property
    def _threads(self) -> int:
        """On how many processors a worker without a GPU draws. Their number changes pixels in the last bit: exact ones need ours."""
        return torch.get_num_threads() if self.exact else 1

    def _count_places(self) -> None:
        nodes = [node["Resources"] for node in ray_library().nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        self._processors = min(self._threads, max(1, *(int(node.get("CPU", 0)) for node in nodes)))
        places = sum(int(node.get("CPU", 0)) // self._processors for node in nodes)
        self._on_gpu = self.device != "cpu" and gpus > 0
        if self.device not in ("auto", "cpu") and not self._on_gpu:
            raise BadInput(f"the device is {self.device!r}, and Ray at {self.address} has no GPU", "Set CMP_DEVICE to auto or cpu.")
        there = gpus if self._on_gpu else max(1, places)
        self._most = min(there, check_address(self.address) or there)

    # -- handing out ---------------------------------------------------------------------------------------------------

    def draw_pass(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """One tile per cell: its preview, or the whole picture."""
        ray = ray_library()
        self._shares.add(in_order(cells))
        while self._open_cells:
            self._hand_out(preview)
            hands = [hand for hand in self._hands if hand.coming is not None]
            ready, _ = ray.wait([hand.coming for hand in hands], num_returns=1, timeout=_LOOK)
            if not ready:
                at_work = sum(hand.open for hand in self._hands)
                yield Progress(self.done, self.total, f"{at_work} of {len(self._hands)} Ray workers are ready")
                continue
            hand = next(hand for hand in hands if hand.coming is ready[0])
            self._hands.remove(hand)
            self._hands.append(hand)  # the first that is ready is taken: one that tells much must not keep the others waiting
            yield from self._hear(hand)

    @property
    def _open_cells(self) -> int:
        return len(self._shares) + sum(len(hand.cells) for hand in self._hands)

    def _hand_out(self, preview: bool) -> None:
        for hand in self._hands:
            if hand.open and hand.coming is None and self._shares:
                cells = self._shares.take(self._most)
                hand.cells = dict.fromkeys(cells)
                hand.coming = hand.actor.draw.remote(cells, preview)
        while len(self._hands) < min(self._most, self._open_cells):
            self._hands.append(self._start())

    def _start(self) -> _Hand:
        ray = ray_library()
        self._started += 1
        environment = {"env_vars": {**self.environment, "PYTHONPATH": _ROOT}}
        kind = ray.remote(Worker).options(
            num_cpus=1 if self._on_gpu else self._processors, num_gpus=int(self._on_gpu), max_restarts=0, runtime_env=environment
        )
        actor = kind.remote(self.opens, ray.get_runtime_context().get_node_id(), self._threads)
        return _Hand(self._started, actor, actor.open.remote())

    # -- hearing -------------------------------------------------------------------------------------------------------

    def _hear(self, hand: _Hand) -> Steps:
        """The next thing that a worker says."""
        ray = ray_library()
        try:
            if not hand.open:
                self._welcome(hand, ray.get(hand.coming))
                return
            item = ray.get(next(hand.coming))
        except StopIteration:
            hand.coming = None
            if hand.cells:
                yield from self._lose(hand, "it ended before its cells did")
            return
        except ray.exceptions.RayError as fault:
            yield from self._lose(hand, str(fault))
            return
        if isinstance(item, Tile):
            hand.cells.pop(item.cell, None)
            self.done += 1
            yield item
        else:
            yield Progress(self.done, self.total, f"worker {hand.number}: {item.what}")

    def _welcome(self, hand: _Hand, told: dict[str, str] | CmpError) -> None:
        if isinstance(told, CmpError):
            raise told
        self._alike = self._alike or told
        if other := sorted(name for name in told if told[name] != self._alike.get(name)):
            name = other[0]
            differ = f"the workers differ: {name} is {told[name]} in one and {self._alike.get(name)} in another"
            raise Refused(differ, "Pictures of one grid must be comparable; give all machines of the cluster the same versions.")
        hand.open, hand.coming = True, None

    def _lose(self, hand: _Hand, why: str) -> Steps:
        """Does without a worker. Its cells are drawn by another, or told as failed where too many workers were lost with them."""
        self._hands.remove(hand)
        ray_library().kill(hand.actor)
        reason = _in_short(why)
        if not hand.open:
            self._fell += 1
            at_work = sum(other.open for other in self._hands)
            if self._fell >= _FALLS and not at_work:
                raise Refused(f"no Ray worker comes up: {reason}", f"Each machine of the cluster needs this program at {_ROOT}.")
            self._most = max(1, at_work) if self._fell >= _FALLS else self._most
        for cell in self._shares.give_back(hand.cells):
            self.done += 1
            yield Tile(cell, "", fault=Fault(f"{TRIES} Ray workers were lost with it, the last: {reason}", "Draw it without --ray."))

    def _end(self) -> None:
        """Ends the workers, and waits until the cluster knows it."""
        ray = ray_library()
        for hand in self._hands:
            ray.kill(hand.actor)
        if last := [hand.actor.open.remote() for hand in self._hands]:
            ray.wait(last, num_returns=len(last), timeout=_PATIENCE)
        self._hands = []


def _in_short(why: str) -> str:
    """The lines of an error of Ray that say what happened, in one of them."""
    lines = [" ".join(line.split()) for line in why.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys((lines[0], lines[-1])))[:400] if lines else "nothing was said"


@contextmanager
def _connected(address: str, gpus: int | None, threads: int) -> Iterator[None]:
    """With Ray at hand. A process has one connection: where it has one already, that is used and left as it is."""
    ray = ray_library()
    if ray.is_initialized():
        yield
        return
    workers, own = check_address(address), address.partition(":")[0] == LOCAL
    # sockets lie in it, whose paths may not be long
    folder = tempfile.mkdtemp(prefix="cmp-", dir="/tmp" if os.access("/tmp", os.W_OK) else None) if own else None
    try:
        if folder:
            _start_ray(workers, gpus, threads, folder)
        else:
            _join(address)
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _join(address: str) -> None:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()  # where nobody answers, Ray asks for many minutes
        ray_library().init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as fault:
        raise NotFound(f"cannot use Ray at {address}: {_in_short(str(fault))}", "`ray status` shows where one runs.") from fault


def _start_ray(workers: int | None, gpus: int | None, threads: int, folder: str) -> None:
    ray = ray_library()
    try:
        count = workers or max(1, min(_MOST_LOCAL, (os.cpu_count() or 1) // threads))
        count = max(count * threads, torch.cuda.device_count() if gpus is None else 0)
        ray.init(
            LOCAL, num_cpus=count, num_gpus=gpus, include_dashboard=False, object_store_memory=_ROOM, _temp_dir=folder,
            log_to_driver=False, logging_level=logging.ERROR,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as fault:
        raise Refused(f"Ray cannot be started here: {_in_short(str(fault))}", "Draw it without --ray.") from fault
