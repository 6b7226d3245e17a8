"""The corpora, and the yardstick that came with them."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from tests.support import unpack

from .judging import Judge

SMALL = Path(__file__).parents[1] / "data" / "corpus" / "small.tar.xz"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real checkpoints with the truth beside each: all that CMP_CORPUS names, else one or two of each case."""
    if named := os.environ.get("CMP_CORPUS"):
        folder = Path(named).resolve()
        assert folder.is_dir(), f"CMP_CORPUS names {folder}, which is no folder"
        return folder
    warnings.warn("CMP_CORPUS is not set, so that only one or two checkpoints of each case are judged", stacklevel=2)
    place = tmp_path_factory.mktemp("small")
    unpack(SMALL, place)
    return place


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
