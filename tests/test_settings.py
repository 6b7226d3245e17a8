"""What the environment says of how to serve."""

from __future__ import annotations

import pytest

from cmp.errors import BadInput
from cmp.settings import Settings


@pytest.mark.parametrize("sign", [{"SYSTEM": "spaces"}, {"SPACE_ID": "ann/cmp"}])
def test_on_a_space_everybody_looks_and_nothing_is_changed_unless_it_is_said_otherwise(sign: dict[str, str]) -> None:
    found = Settings.from_env(sign | {"SPACE_HOST": "ann-cmp.hf.space"})
    assert (found.mode, found.read_only, found.open_reading, found.hosts) == ("space", True, True, ("ann-cmp.hf.space",))
    told = Settings.from_env(sign | {"CMP_MODE": "token", "CMP_TOKEN": "x"})
    assert not told.read_only and not told.open_reading


def test_here_nothing_is_open_and_no_other_name_is_taken() -> None:
    found = Settings.from_env({"SPACE_HOST": "evil.test"})
    assert (found.mode, found.read_only, found.open_reading, found.hosts) == ("local", False, False, ())
    assert Settings.from_env({"CMP_HOSTS": " CMP.example.org ,b", "CMP_READING": "open"}).hosts == ("cmp.example.org", "b")


@pytest.mark.parametrize("variable", ["CMP_MODE", "CMP_READING"])
def test_a_misspelt_setting_is_refused_and_not_taken_for_the_open_one(variable: str) -> None:
    with pytest.raises(BadInput, match="opened"):
        Settings.from_env({variable: "opened"})
