"""What a conversion replaces: it goes to a `.cmp-trash/` on the same disk with a record of where it was, so that it can be brought back."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from cmp.disk.converted import read_record
from cmp.disk.replacing import cannot_write
from cmp.disk.trash import FOLDER, plain_name, record_of, write_synced


def make_way(target: Path, run_folder: Path, *, link: bool = False) -> Path | None:
    """Moves what lies at `target` into a `.cmp-trash/` on the same disk, and says where it is now; None if nothing was there.

    With `link` a file stays under its name too, where the disk can do that, until the new one takes the name.
    """
    if not (target.exists() or target.is_symlink()):
        return None
    home = run_folder if target.is_relative_to(run_folder) else target.parent
    folder = home / FOLDER
    # a second thing of this name may have come in the same second: the forms "lora" and "webui" name their files alike
    names = (
        f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}{again}-{plain_name(target)}" for again in ("", *(f"-{n}" for n in range(2, 1000)))
    )
    name = next(name for name in names if not os.path.lexists(folder / name) and not os.path.lexists(record_of(home, name)))
    form = read_record(target).get("form")
    why = f"replaced by convert --force{f' (form {form})' if form else ''}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_synced(record_of(home, name), {"path": os.path.relpath(target, home), "moved_at": time.time(), "why": why, "beside": True})
        if not (link and _linked(target, folder / name)):
            os.replace(target, folder / name)
    except OSError as fault:
        with suppress(OSError):
            record_of(home, name).unlink(missing_ok=True)
        raise cannot_write(target, fault) from fault
    return folder / name


def put_back(old: Path, target: Path) -> None:
    """Undoes make_way: what has not come about after all replaces nothing."""
    os.replace(old, target)
    old.unlink(missing_ok=True)  # of two names of one file os.replace takes neither away
    record_of(old.parent.parent, old.name).unlink(missing_ok=True)


def _linked(target: Path, trash: Path) -> bool:
    try:
        os.link(target, trash, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a folder, or a disk without hard links
        return False
    return True
