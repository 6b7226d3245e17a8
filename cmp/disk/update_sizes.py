"""How large what a checkpoint holds is, read from its adapter alone, or beside its base model where that is at hand."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field

import numpy as np

from cmp.core.deltas import apply_delta
from cmp.core.fitting import find_module, find_tensor
from cmp.core.present import counted
from cmp.core.progress import Progress, run_through
from cmp.core.update_size import REVISION, BlockSize, ModuleSize, UpdateSize, by_block, depends_on_base, square_of, squares_of
from cmp.core.weights import Adapted
from cmp.disk.base_proof import compared, comparing
from cmp.disk.bases import CONTROL, Component, read_component
from cmp.disk.ready import Ready
from cmp.disk.store import Store
from cmp.disk.tensors import read_float32
from cmp.errors import CmpError, Refused

QUICK = 32 << 20  # bytes of an adapter that is measured wherever it is shown
_KIND, _NORMS = "update-size", "base-squares"  # of what the store remembers


def _trained_whole(ready: Ready, store: Store) -> bool:
    """Whether tensors were trained whole beside the adapter, or may have been."""
    weights, base = ready.opened.weights, ready.base
    if {name.partition(".")[0] for name in weights.plain.values()} - weights.dumped:
        return True
    doubtful = weights.dumped & set(ready.replaced)
    if doubtful and (base is None or base.proof != "tensors"):
        return True
    return any(base and compared(ready.opened, name, base.path, store).differing for name in doubtful)


def knows_update_size(store: Store, weights: str, base: str) -> bool:
    """Whether `kept_update_size` would read nothing."""
    return store.get(_KIND, f"{REVISION}|{weights}|{base}") is not None


def kept_update_size(ready: Ready, store: Store, weights: str, base: str) -> Generator[Progress, None, UpdateSize]:
    """The same as `measuring_update`, measured once for these digests of weights and base."""
    subject = f"{REVISION}|{weights}|{base}"
    if isinstance(known := store.get(_KIND, subject), list) and len(known) == 2:
        return UpdateSize(tuple(BlockSize(*block) for block in known[0]), tuple(known[1]))
    found = yield from measuring_update(ready, store)
    with suppress(Refused):
        store.put(_KIND, subject, [[astuple(block) for block in found.blocks], list(found.told)])
    return found


def quick_update_size(ready: Ready, store: Store) -> UpdateSize | None:
    """The same where it takes no time: of an adapter that is small and all that was trained, by itself. None otherwise."""
    weights, entries = ready.opened.weights, ready.opened.header.tensors
    stored = {name for module in weights.adapted for name in module.weight_parts.values()}
    large = sum(entries[name].end - entries[name].start for name in stored) > QUICK
    if large or _trained_whole(ready, store) or not weights.adapted or any(depends_on_base(module.parts) for module in weights.adapted):
        return None
    work = _Work(ready, store, with_base=False)
    return work.told(run_through(work.adapters()))


def measuring_update(ready: Ready, store: Store) -> Generator[Progress, None, UpdateSize]:
    """Reads every trained tensor once, and those of the base that they change where it is at hand; what a base has is remembered."""
    work = _Work(ready, store, with_base=True)
    sizes = yield from work.adapters()
    sizes += yield from work.whole()
    work.remember()
    return work.told(sizes)


_Sizes = list[tuple[str, ModuleSize]]


@dataclass(slots=True)
class _Work:
    ready: Ready
    store: Store
    with_base: bool
    _unknown: dict[str, list[str]] = field(default_factory=dict)
    _components: dict[str, Component | None] = field(default_factory=dict)
    _norms: dict[str, dict[str, float]] = field(default_factory=dict)

    def adapters(self) -> Generator[Progress, None, _Sizes]:
        modules, sizes = self.ready.opened.weights.adapted, _Sizes()
        for done, module in enumerate(modules):
            yield Progress(done, len(modules), "measuring what was trained")
            if (square := self._adapted(module)) is not None:
                sizes.append((module.component, ModuleSize(module.module, square, self._base_square(module.component, module.module))))
        return sizes

    def _adapted(self, module: Adapted) -> float | None:
        """The square of what an adapter adds to its module, its bias counted in; None where only the base would tell."""
        header = self.ready.opened.header
        scale = self.ready.scale.of(module.key) if self.ready.scale else 1.0
        square = 0.0
        for role, factor in (("diff_b", 1.0), ("up_bias", scale)):
            if role in module.parts:
                square += factor**2 * squares_of(module.cut(role, read_float32(header, module.parts[role])))
        parts = {role: read_float32(header, stored) for role, stored in module.weight_parts.items()}
        if not parts:
            return square
        if not depends_on_base(parts):
            return square + square_of(module.method, parts, scale, module.rows)
        there, name = self._weight(module.component, module.module)
        if there is None or name is None:
            self._unmeasured("adapted by DoRA, whose change depends on the base model", module.key)
            return None
        base = read_float32(there.header, name)
        return square + squares_of(apply_delta(module.method, parts, scale, base, rows=module.rows).astype(np.float64) - base)

    def whole(self) -> Generator[Progress, None, _Sizes]:
        """The tensors that were trained whole: those of a dump are frozen where they are the base's."""
        opened, sizes = self.ready.opened, _Sizes()
        for component in opened.weights.components:
            plain = opened.weights.plain_of(component)
            there = self._component(component)
            if component in opened.weights.dumped:
                plain = (yield from self._differing(component, plain)) if self.ready.base and there else {}
            for done, (stored, inner) in enumerate(plain.items()):
                yield Progress(done, len(plain), f"measuring what was trained of the {component.replace('_', ' ')}")
                known = find_tensor(inner, there.shapes) if there else None
                own = opened.header.tensors[stored].shape
                if there is None or known is None or there.shapes[known] != own:
                    self._unmeasured("trained whole, whose change only the base model would tell", f"{component}.{inner}")
                    continue
                base = read_float32(there.header, known)
                square = squares_of(read_float32(opened.header, stored).astype(np.float64) - base)
                sizes.append((component, ModuleSize(inner, square, squares_of(base))))
        for name in opened.weights.embeddings.values():
            self._unmeasured("a learned word, which changes nothing of the base model", name)
        return sizes

    def _differing(self, component: str, plain: Mapping[str, str]) -> Generator[Progress, None, dict[str, str]]:
        assert self.ready.base is not None
        found = yield from comparing(self.ready.opened, component, self.ready.base.path, self.store)
        return {stored: inner for stored, inner in plain.items() if stored in found.differing}

    def _unmeasured(self, why: str, name: str) -> None:
        self._unknown.setdefault(why, []).append(name)

    def told(self, sizes: _Sizes) -> UpdateSize:
        lost = (f"{counted(len(names), 'part')} not counted: {why}; the first is {names[0]}" for why, names in self._unknown.items())
        return UpdateSize(by_block(sizes) if sizes else (), tuple(lost))

    # -- the base ------------------------------------------------------------------------------------------------------

    def _component(self, name: str) -> Component | None:
        if name not in self._components:
            self._components[name] = None
            if self.with_base and self.ready.base is not None and name != CONTROL:
                with suppress(CmpError):
                    self._components[name] = read_component(self.ready.base.path, name)
        return self._components[name]

    def _weight(self, component: str, module: str) -> tuple[Component | None, str | None]:
        there = self._component(component)
        known = find_module(module, there.shapes) if there else None
        return there, f"{known}.weight" if known is not None else None

    def _base_square(self, component: str, module: str) -> float | None:
        there, name = self._weight(component, module)
        if there is None or name is None:
            return None
        if component not in self._norms:
            known = self.store.get(_NORMS, there.header.subject)
            self._norms[component] = {str(key): float(value) for key, value in known.items()} if isinstance(known, dict) else {}
        norms = self._norms[component]
        if name not in norms:
            norms[name] = squares_of(read_float32(there.header, name))
        return norms[name]

    def remember(self) -> None:
        for component, norms in self._norms.items():
            if there := self._component(component):
                with suppress(Refused):
                    self.store.put(_NORMS, there.header.subject, norms)
