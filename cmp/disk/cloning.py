"""Copies that share their blocks with what they are of (reflinks, as Btrfs and XFS have them), and stay files of their own."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_FICLONE = 0x40049409  # linux/fs.h
_HAS_NONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


def clone(source: Path, target: int) -> bool:
    """Makes an open and empty file share the blocks of another; False where this disk or system cannot, and then nothing is written."""
    try:
        from fcntl import ioctl  # not on Windows

        with open(source, "rb") as read:
            ioctl(target, _FICLONE, read.fileno())
    except ImportError:
        return False
    except OSError as fault:
        if fault.errno not in _HAS_NONE:
            raise
        return False
    return True


def can_clone(source: Path, folder: Path) -> bool:
    """Whether `clone` would do within a folder. It is tried in a file that never gets a name there."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except (AttributeError, OSError):  # not Linux, a disk that has no such files, or a folder that cannot be written
        return False
    try:
        return clone(source, descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
