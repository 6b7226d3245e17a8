"""What several tests of the disk need."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary folder that other users may enter, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    for path, folders, _ in os.walk(folder):
        for name in folders:  # before they are entered
            os.chmod(os.path.join(path, name), 0o755)
    shutil.rmtree(folder)
