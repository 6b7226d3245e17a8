"""What the program can do is written down: the reference page is the program's own, and the prose names every verb and setting."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cmp.cli import VERBS
from cmp.settings import VARIABLES

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROSE = "\n".join(page.read_text("utf-8") for page in PAGES if page.name != "reference.md")


def test_the_reference_page_says_what_the_program_does() -> None:
    checked = subprocess.run([sys.executable, str(ROOT / "scripts" / "write_reference.py"), "--check"], check=False)
    assert checked.returncode == 0, "run `python scripts/write_reference.py`"


def test_every_setting_that_is_read_is_told() -> None:
    read = set(re.findall(r'"(CMP_[A-Z_]+)"', (ROOT / "cmp" / "settings.py").read_text("utf-8")))
    assert read == set(VARIABLES)


@pytest.mark.parametrize("verb", VERBS)
def test_the_prose_shows_every_verb(verb: str) -> None:
    assert re.search(rf"python -m cmp( --\w+ \S+)* {verb}\b", PROSE), f"no page shows `python -m cmp {verb}`"


@pytest.mark.parametrize("name", VARIABLES)
def test_the_prose_names_every_setting(name: str) -> None:
    assert name in PROSE


@pytest.mark.parametrize("tab", re.findall(r'gr\.Tab\("(\w+)"', (ROOT / "cmp" / "ui" / "page.py").read_text("utf-8")))
def test_the_first_page_has_a_picture_of_every_tab(tab: str) -> None:
    picture = f"assets/{tab.lower()}.webp"
    assert f"]({picture})" in PAGES[0].read_text("utf-8") and (ROOT / picture).stat().st_size > 10_000


@pytest.mark.parametrize("trainer", ["accelerate", "peft", "diffusers", "kohya", "lycoris", "ai-toolkit", "onetrainer", "simpletuner"])
def test_every_trainer_whose_runs_are_read_has_a_section(trainer: str) -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "trainers.md").read_text("utf-8"), re.MULTILINE)
    assert any(trainer.lower() in heading.lower() for heading in headings), f"docs/trainers.md says nothing of {trainer}"


# what a user looks for, where it stands, and a command or address that a page on it cannot do without
SUBJECTS = {
    "how to pick": ("docs/picking.md", "python -m cmp best"),
    "how to compact": ("README.md", "--compact"),
    "on a Space": ("docs/spaces.md", "hf upload"),
    "on ZeroGPU": ("docs/spaces.md", "SPACES_ZERO_GPU"),
    "REST": ("README.md", "/api/v1"),
    "who may do what": ("docs/serving.md", "--token"),
    "troubles": ("docs/troubleshooting.md", "python -m cmp doctor"),
    "alerts": ("docs/operations.md", "--alert-webhook"),
    "sharing": ("docs/sharing.md", "python -m cmp share"),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_a_user_looks_for_has_a_page_that_the_first_one_leads_to(subject: str) -> None:
    place, words = SUBJECTS[subject]
    text = (ROOT / place).read_text("utf-8")
    assert words in text, f"{place} says nothing of {subject}"
    assert place == "README.md" or f"]({place})" in PAGES[0].read_text("utf-8"), f"README.md does not lead to {place}"


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken
