"""An adapter of another model is refused before any file is made of it, in every form."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.errors import Refused
from tests.support import base_pipeline, base_tensors, convert, diffusers_run, left_in


@pytest.mark.parametrize("form", ["lora", "webui", "pipeline"])
def test_an_adapter_of_a_wider_base_is_refused_and_the_module_is_named(tmp_path: Path, form: str) -> None:
    made = diffusers_run(tmp_path)
    wider = {name: values.repeat(2, axis=0) if values.ndim > 1 else values for name, values in base_tensors().items()}
    base_pipeline(made.bases, wider)
    before = left_in(made)
    with pytest.raises(Refused, match="in the base: its parts"):
        convert(made, form, "sd-lora@2")
    assert left_in(made) == before
