"""What files hold, by what they were when somebody looked: so files that were touched, copied, moved, compacted or restored are known
again by their weights, and files that were trained anew are not taken for what they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from cmp.core.runs import Checkpoint
from cmp.disk.store import Store
from cmp.disk.tensors import identify
from cmp.errors import CmpError, Refused

_KIND = "files-hold"


def files_of(checkpoint: Checkpoint | None) -> str:
    """What a checkpoint's files are now, in one word; "" for the base model, or where one of them has gone."""
    if checkpoint is None:
        return ""
    with suppress(CmpError):
        told = "|".join(str(identify(path)) for path in checkpoint.files)
        return hashlib.sha256(told.encode()).hexdigest()[:32] if told else ""
    return ""


def held(store: Store, files: str) -> dict[str, str]:
    """Digests of what was trained in files (see disk.ready.digest_of), by the names of the components of which all was."""
    known = store.get(_KIND, files) if files else None
    return {str(whole): str(digest) for whole, digest in known.items()} if isinstance(known, dict) else {}


def hold(store: Store, files: str, more: Mapping[str, str]) -> None:
    """Remembers more of what files hold."""
    if files:
        with suppress(Refused):
            store.put(_KIND, files, held(store, files) | dict(more))


def all_held(store: Store) -> dict[str, dict[str, str]]:
    """All that is remembered."""
    return {files: {str(k): str(v) for k, v in told.items()} for files, told in store.all(_KIND).items() if isinstance(told, dict)}


def holds_the_same(store: Store, then: str, now: str) -> bool | None:
    """Whether files hold what they held when they were others; None where nobody has looked."""
    if then == now:
        return True
    if not now:
        return False
    before, after = held(store, then), held(store, now)
    if any(after.get(whole, digest) != digest for whole, digest in before.items()):
        return False
    return True if before and before.keys() <= after.keys() else None
