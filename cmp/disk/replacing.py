"""Files that appear whole under their name, or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cmp.errors import BadInput, CmpError, NoSpace

_LEFT_BEHIND = re.compile(r"\.tmp-[a-z0-9_]{8}(?:\.safetensors|\.json|\.png|\.webp)?", re.ASCII)
_OLD = 86400.0  # seconds: no writing takes a day


def sweep(folder: Path) -> None:
    """Removes the drafts of ours that a killed process left in a folder, a day old at least; what cannot be removed stays."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _LEFT_BEHIND.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)


@contextmanager
def replacing(target: Path, ending: str | None = None) -> Iterator[Path]:
    """Gives a temporary path beside `target` that becomes `target` when the block ends well, and vanishes when it does not.

    Its ending is that of the target, or the given one.
    """
    draft = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".tmp-", suffix=target.suffix if ending is None else ending)
        os.close(handle)
        draft = Path(name)
        yield draft
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, target)
    except OSError as fault:
        raise cannot_write(target, fault) from fault
    finally:
        if draft:
            draft.unlink(missing_ok=True)


def keep_if_possible(place: Path, content: bytes) -> None:
    """Keeps what can be made again: whole under its name, or where that is not possible not at all, and nobody is told."""
    draft = place.with_name(f".tmp-{secrets.token_hex(4)}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            os.replace(draft, place)
        finally:
            draft.unlink(missing_ok=True)


def cannot_write(target: Path, fault: OSError) -> CmpError:
    """What the system's refusal to write `target` means for the user."""
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"the disk became full while writing {target}", "Make room and try again; nothing was left behind.")
    return BadInput(f"cannot write {target}: {fault.strerror or fault}", "Choose another place, or change its permissions.")


def _umask() -> int:
    # the mask can only be read by setting it; the process is single-threaded here for all that matters: every writer sets the same
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
