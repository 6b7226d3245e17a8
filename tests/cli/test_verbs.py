"""The verbs are loaded one by one: each is there under its name, and none brings the others along."""

from __future__ import annotations

from importlib import import_module

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from cmp.cli import VERBS, app


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_module_that_the_table_names(verb: str) -> None:
    assert verb in get_group(import_module(f"cmp.cli.{VERBS[verb]}").app).commands


def test_the_help_names_every_verb_and_none_that_is_not_in_the_table() -> None:
    said = CliRunner().invoke(app, ["--help"])
    assert said.exit_code == 0
    commands = said.output.partition("Commands:")[2]
    assert [line.split()[0] for line in commands.splitlines() if line[:3].strip()] == list(VERBS)


def test_a_misspelt_verb_is_told_with_the_one_that_may_be_meant() -> None:
    said = CliRunner().invoke(app, ["convrt"])
    assert said.exit_code == 2 and "Did you mean 'convert'" in said.output
