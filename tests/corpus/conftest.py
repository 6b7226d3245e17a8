"""The corpora, and the yardstick that came with them."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from .judging import Judge


def folder_named_by(variable: str, holds: str) -> Path:
    """The folder that an environment variable names; skips, and says so, where it names none. A wrong name is an error."""
    named = os.environ.get(variable)
    if not named:
        warnings.warn(f"{variable} is not set, so that {holds} not judged", stacklevel=2)
        pytest.skip(f"{variable} is not set")
    folder = Path(named).resolve()
    assert folder.is_dir(), f"{variable} names {folder}, which is no folder"
    return folder


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Real checkpoints with the truth beside each."""
    return folder_named_by("CMP_CORPUS", "the corpus of real checkpoints is")


@pytest.fixture(scope="session")
def probing(corpus: Path) -> Any:
    """The corpus's own module of probes: it made the truth, so it measures."""
    spec = spec_from_file_location("corpus_probe", corpus / "probe.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder is only read
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


@pytest.fixture(scope="session")
def judge(corpus: Path, probing: Any, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Judges each case once, whichever test asks first."""
    return Judge(corpus, probing, tmp_path_factory.mktemp("corpus"))
