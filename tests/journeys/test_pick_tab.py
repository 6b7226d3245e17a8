"""The Pick tab and the voting page of the real program: real pictures that another process drew, real keys, a verdict at the end."""

from __future__ import annotations

import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from cmp.core.agreeing import sentence
from cmp.settings import Settings
from cmp.workbench import Workbench

from .conftest import FULL, Server, run_command, start_server
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]
OPTIONS = {"resultTypes": ["violations"], "rules": {"region": {"enabled": False}}}
SEEDS = 8
SEEN = """() => Object.fromEntries([...document.querySelectorAll(".picture")].map((frame) => {
  const img = frame.querySelector("img");
  const pen = Object.assign(document.createElement("canvas"), { width: img.naturalWidth, height: img.naturalHeight }).getContext("2d");
  pen.drawImage(img, 0, 0);
  return [frame.dataset.side, [...pen.getImageData(0, 0, img.naturalWidth, img.naturalHeight).data].filter((_, i) => i % 4 < 3)];
}))"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, demo_home: Path) -> Path:
    """A home in which another process drew two checkpoints of the demo."""
    home = tmp_path_factory.mktemp("picking")
    shutil.copytree(demo_home / "demo", home / "demo")
    said = run_command(home, "grid", FULL, "--checkpoints", "500, 3000", "--prompt", "a red shoe", "--seeds", f"1-{SEEDS}", "--steps", "2")
    assert said.code == 0, said.err
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    yield from start_server(home, "serve", "--port", "0")


def bench_of(home: Path) -> Workbench:
    return Workbench(Settings(home))


class Voter:
    """The voting page, and which checkpoint each picture is of, which this test knows by its pixels alone."""

    def __init__(self, context: Any, server: Server, run: str = FULL) -> None:
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda fault: self.complaints.append(str(fault)))
        self.pixels = {pixels(file): description["checkpoint"] for file, description in cells(server.home)}
        self.page.goto(f"{server.url}/cmp/vote/{run}")

    def begin(self, name: str) -> None:
        self.page.locator("#voter").wait_for()
        self.page.keyboard.type(name)
        self.page.keyboard.press("Enter")
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector(".stage[aria-busy=false]")

    def key_of(self, step: str) -> str:
        """The key that prefers this checkpoint."""
        seen = self.page.evaluate(SEEN)
        shown = {side: self.pixels[bytes(rgb)].rpartition("@")[2] for side, rgb in seen.items()}
        assert set(shown.values()) == {"500", "3000"}
        return {"left": "1", "right": "ArrowRight"}[next(side for side, own in shown.items() if own == step)]

    def press(self, key: str) -> None:
        pair = self.page.locator("img").first.get_attribute("src")
        self.page.keyboard.press(key)
        self.page.wait_for_function("(src) => document.querySelector('img').getAttribute('src') !== src", arg=pair)
        self.ready()

    def progress(self) -> str:
        return str(self.page.locator(".progress").inner_text())


def cells(home: Path) -> list[tuple[Path, dict[str, Any]]]:
    from cmp.disk.cells import description

    return [(file, description(file) or {}) for file in (home / "cells").rglob("*.png")]


def pixels(picture: Any) -> bytes:
    with Image.open(picture) as image:
        return image.convert("RGB").tobytes()


def test_votes_by_keys_alone_come_to_a_verdict_that_tab_and_command_tell_alike(browser: Any, server: Server, home: Path) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    ann = Voter(context, server)
    ann.begin("ann")
    assert "500" not in ann.page.content() and "3000steps" in ann.page.content(), "the run is named, a checkpoint is not"
    bare = "Only 2 of the 6 checkpoints have pictures to vote on."
    assert ann.progress() == f"{SEEDS} pairs of pictures to vote on. No votes yet. {bare}"
    _ties_both_bad_and_taking_back(ann, home)
    settled = 0
    while "They settle it." not in ann.progress() and settled < 40:
        ann.press(ann.key_of("3000"))
        settled += 1
    assert "They settle it." in ann.progress(), ann.progress()
    best = run_command(home, "best", FULL, "--by", "votes", "--json").json
    assert best["best"] == f"{FULL}@3000"
    ann.page.locator("[data-reveal]").focus()
    ann.page.keyboard.press("Enter")
    ann.page.locator(".strengths table").wait_for()
    assert ann.page.locator(".strengths .reason").inner_text() == sentence(best["reason"])
    assert ann.complaints == []
    context.close()
    _the_tab_tells_the_same(browser, server, best["reason"])


def _ties_both_bad_and_taking_back(ann: Voter, home: Path) -> None:
    for key in ("3", "ArrowDown", "4", "x", "u"):
        ann.press(key)
    bench = bench_of(home)
    votes = bench.votes(bench.library().run(FULL))
    assert [vote.outcome for vote in votes] == ["tie", "tie", "bad"]
    assert ann.progress().startswith(f"You have voted on 3 of {SEEDS} pairs of pictures, {SEEDS - 3} are left. 3 votes so far.")
    ann.page.get_by_text("The last vote is taken back: here is its pair again.").wait_for()
    for _ in range(3):
        ann.press("u")
    ann.press("u")
    ann.page.get_by_text("There is no vote of yours to take back.").wait_for()
    assert bench.votes(bench.library().run(FULL)) == () and "No votes yet." in ann.progress()


def _the_tab_tells_the_same(browser: Any, server: Server, reason: str) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), server)
    watched.row("runs-table", FULL).click()
    watched.row("checkpoints-table", f"{FULL}@500").wait_for()
    watched.tab("Pick")
    page = watched.page
    panel = page.locator("#pick [data-rule=votes]")
    panel.wait_for()
    assert panel.locator(".cmp-pick-sentence").inner_text() == sentence(reason)
    assert panel.locator(".cmp-pick-point.is-best").get_attribute("data-id") == f"{FULL}@3000"
    assert page.locator("#pick .cmp-pick-told").inner_text() == "Votes say step 3000."
    assert page.locator("#pick .is-leading").get_attribute("data-rule") == "votes"
    watched.picture("pick")
    assert watched.complaints == []
    context.close()


def test_two_voters_count_both_and_see_only_their_own_taken_back(browser: Any, server: Server, home: Path) -> None:
    bench = bench_of(home)
    run = bench.library().run(FULL)
    before = len(bench.votes(run))
    voters = []
    for name in ("bea", "cem"):
        context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
        context.set_default_timeout(30_000)
        voter = Voter(context, server)
        voter.begin(name)
        voter.page.locator(".picture").first.tap()
        voter.page.wait_for_function("() => document.querySelector('.said').textContent.includes('picture 1')")
        voter.ready()
        voters.append((context, voter))
    (_, bea), (_, cem) = voters
    cem.press("u")
    assert [vote.voter for vote in bench.votes(run)[before:]] == ["bea"]
    assert f"{before + 1} vote" in cem.progress() and "0 of them yours" in cem.progress()
    bea.page.reload()
    bea.ready()
    assert "voting as bea" in bea.page.locator(".voter").inner_text(), "the name is asked for once"
    assert bea.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs out of a phone's page"
    for context, voter in voters:
        assert voter.complaints == []
        context.close()


def test_a_key_that_is_held_or_pressed_while_nothing_is_shown_is_no_vote(browser: Any, server: Server, home: Path) -> None:
    bench = bench_of(home)
    run = bench.library().run(FULL)
    context = browser.new_context()
    context.set_default_timeout(30_000)
    dan = Voter(context, server)
    dan.page.locator("#voter").wait_for()
    dan.page.keyboard.type("dan 1 x 3u")
    dan.page.keyboard.press("Enter")
    dan.ready()
    before = len(bench.votes(run))
    dan.page.keyboard.press("Control+1")
    dan.page.keyboard.down("2")
    for _ in range(5):
        dan.page.keyboard.down("2")  # the same key, held
    dan.page.wait_for_function("() => document.querySelector('.said').textContent.includes('picture 2')")
    dan.ready()
    assert [vote.voter for vote in bench.votes(run)[before:]] == ["dan 1 x 3u"]
    dan.press("u")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [1400, 390])
def test_axe_finds_nothing_on_the_voting_page(browser: Any, server: Server, scheme: str, wide: int) -> None:
    context = browser.new_context(viewport={"width": wide, "height": 844}, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(30_000)
    eve = Voter(context, server)
    eve.page.locator("#voter").wait_for()
    assert faults(eve.page, "main") == []
    eve.begin("eve")
    assert faults(eve.page, "main") == []
    eve.press("3")
    eve.page.locator("[data-reveal]").click()
    eve.page.locator(".strengths table").wait_for()
    assert faults(eve.page, "main") == []
    eve.press("u")
    context.close()


def faults(page: Any, part: str) -> list[str]:
    found = Axe().run(page, context=part, options=OPTIONS).response["violations"]
    return [f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')}" for one in found for node in one["nodes"]]


# -- the tab ---------------------------------------------------------------------------------------------------------------


def losses(log: Path) -> None:
    """A held-out loss that is lowest at 1500, and a metric that says 500."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    writer = RecordWriter(out)
    for step in range(0, 3001, 50):
        event = Event(wall_time=1795454437 + step, step=step)
        wobble = 0.0004 * ((step * 7919) % 13 - 6)
        event.summary.value.add(tag="val/loss", simple_value=0.05 + 0.05 * ((step - 1600) / 1500) ** 2 + wobble)
        event.summary.value.add(tag="eval/clip_score", simple_value=0.3 - 0.00006 * abs(step - 500) + wobble)
        writer.write(event.SerializeToString())
    with log.open("ab") as file:
        file.write(out.getvalue())


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, demo_home: Path) -> Path:
    """A home whose demo has logged a held-out loss and a metric beside it."""
    home = tmp_path_factory.mktemp("logged")
    shutil.copytree(demo_home / "demo", home / "demo")
    shutil.copytree(demo_home / "demo" / "training", home / "training")
    losses(max((home / "training" / "logs" / "train_lora_casual_shoes").glob("events*"), key=lambda file: file.stat().st_size))
    return home


@pytest.fixture(scope="module")
def serving(logged: Path) -> Iterator[Server]:
    yield from start_server(logged, "--runs", str(logged / "training" / "outputs"), "serve", "--port", "0")


def opened(browser: Any, server: Server, **more: Any) -> Watched:
    context = browser.new_context(**({"viewport": {"width": 1400, "height": 900}} | more))
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), server)
    watched.row("runs-table", FULL).click()
    watched.row("checkpoints-table", f"{FULL}@500").wait_for()
    watched.tab("Pick")
    watched.page.locator("#pick [data-rule=held-out] svg").wait_for()
    return watched


def closed(watched: Watched) -> None:
    assert watched.complaints == []
    watched.page.context.close()


def test_rules_that_disagree_say_so_and_each_panel_says_what_best_says(browser: Any, serving: Server, logged: Path) -> None:
    watched = opened(browser, serving)
    page = watched.page
    runs = ("--runs", str(logged / "training" / "outputs"))
    for rule in ("held-out", "training", "eval/clip_score"):
        said = run_command(logged, *runs, "best", FULL, "--by", rule, "--json").json
        panel = page.locator(f'#pick [data-rule="{rule}"]')
        if rule != "training":  # which was asked for by name there, and names a best only then
            assert panel.locator(".cmp-pick-sentence").inner_text() == sentence(said["reason"])
            shaded = panel.locator(".cmp-pick-point.is-window").evaluate_all("(nodes) => nodes.map((node) => node.dataset.id)")
            assert set(shaded) == set(said["window"])
        panel.locator("summary", has_text="As a table").click()
        assert panel.locator("tbody tr").count() == len(said["scores"]) + (rule != "training")
    told = page.locator("#pick .cmp-pick-told").inner_text()
    assert told.startswith("Held-out loss says ") and told.endswith(": they disagree.") and "eval/clip_score says step" in told
    assert told in run_command(logged, *runs, "best", FULL).err
    closed(watched)


def test_a_click_picks_a_checkpoint_that_is_starred_converted_and_compared_with_keys_and_pointer(browser: Any, serving: Server) -> None:
    watched = opened(browser, serving)
    page = watched.page
    point = page.locator('#pick [data-rule=held-out] [data-id$="@2000"] .cmp-pick-dot').bounding_box()
    page.mouse.move(point["x"] + 3, point["y"] + 3)
    page.locator("#pick .cmp-pick-tip:visible").wait_for()
    told = page.locator("#pick .cmp-pick-tip:visible").inner_text().split("\n")
    assert told[0] == "step 2000" and " to " in told[2] and told[3] == "1 value" and float(told[1]) > 0
    page.mouse.click(point["x"] + 3, point["y"] + 3)
    page.get_by_role("button", name="Convert step 2000").wait_for()
    page.locator("#pick [data-do=star]").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Take the star away").wait_for()
    assert "★ step 2000" in page.locator("#pick select").last.inner_text()
    assert page.get_by_label("Checkpoint to go on with").input_value() == f"{FULL}@2000", "what was picked stays picked"
    page.locator("#pick [data-do=star]").click()
    page.get_by_role("button", name="Star it").wait_for()
    compare = page.locator("#pick [data-do=compare]")
    ends = re.findall(r"step (\d+)", compare.inner_text())
    compare.click()
    full = page.locator("#grid dialog.cmp-full[open]")
    full.wait_for()  # the demo's trainer drew both
    assert full.locator(".cmp-full-title").inner_text().startswith(f"step {ends[0]} ↔ step {ends[1]}")
    page.keyboard.press("Escape")
    full.wait_for(state="hidden")
    page.locator("#compare-checkpoints input").first.wait_for()
    ticked = page.locator("#compare-checkpoints label:has(input:checked)").all_inner_texts()
    assert [text.strip() for text in ticked] == ends and len(ends) == 2
    watched.tab("Pick")
    page.get_by_role("button", name="Convert step 2000").click()
    watched.row("checkpoints-table", f"{FULL}@2000").locator("input:checked").wait_for()
    closed(watched)


def test_scores_verdicts_and_the_chart_leave_as_files_that_say_the_same(browser: Any, serving: Server, tmp_path: Path) -> None:
    watched = opened(browser, serving)
    page = watched.page
    page.locator("#pick summary", has_text="Export").click()
    with page.expect_download() as waiting:
        page.get_by_text("Scores (CSV)").click()
    rows = Path(waiting.value.path()).read_text().splitlines()
    assert rows[0].startswith("rule,metric,checkpoint") and len(rows) == 1 + 3 * 6 and waiting.value.suggested_filename.endswith(".csv")
    with page.expect_download() as waiting:
        page.get_by_text("Verdicts (JSON)").click()
    told = json.loads(Path(waiting.value.path()).read_text())
    assert told["agree"] is False and told["told"] == page.locator("#pick .cmp-pick-told").inner_text()
    with page.expect_download() as waiting:
        page.get_by_label("Held-out loss as SVG").click()
    drawn = ET.parse(waiting.value.path()).getroot()
    parts = list(drawn.iter())
    assert drawn.tag.endswith("svg") and sum(part.get("class", "").startswith("cmp-pick-point") for part in parts) == 6
    assert not any("var(" in value or "color-mix(" in value for part in parts for value in part.attrib.values())
    closed(watched)


def test_a_page_is_previewed_and_downloaded_and_the_picked_checkpoint_with_its_card(browser: Any, serving: Server, tmp_path: Path) -> None:
    watched = opened(browser, serving)
    page, told = watched.page, watched.page.locator("#pick .cmp-pick-share")
    page.set_default_timeout(60_000)  # pictures are made anew, and diffusers reads the weights back
    page.locator("#pick summary", has_text="Share").click()
    page.locator("#pick [data-share=preview]").click()
    told.get_by_text("No weights, no folder of yours").wait_for()
    assert "the loss, the page" in told.inner_text()
    for name, holds in (("page", "index.html"), ("model", "pytorch_lora_weights.safetensors")):
        page.locator("#pick summary", has_text="Share").click()
        with page.expect_download() as download:
            page.locator(f"#pick [data-share={name}]").click()
        download.value.save_as(tmp_path / f"{name}.zip")
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            assert holds in {entry.partition("/")[2] for entry in archive.namelist()}
        told.get_by_text("is ready.").wait_for()
    closed(watched)


def test_another_run_is_chosen_on_the_tab_and_one_without_a_verdict_says_what_to_do(browser: Any, serving: Server) -> None:
    watched = opened(browser, serving)
    page = watched.page
    page.get_by_label("Run", exact=True).select_option("casual_shoes_lr_5e-4")
    page.get_by_text("No verdict yet: nothing that was logged or measured decides.").wait_for()
    assert page.locator("#pick .cmp-pick-next li").count() == 3
    assert page.locator("#pick .cmp-pick-panel").evaluate_all("(nodes) => nodes.map((node) => node.dataset.rule)") == ["training"]
    watched.tab("Curves")
    watched.tab("Pick")
    page.wait_for_function("document.querySelector('#pick .cmp-pick-told').textContent.startsWith('No verdict yet')")
    assert page.get_by_label("Run", exact=True).input_value() == "casual_shoes_lr_5e-4"
    closed(watched)


def test_a_run_without_pictures_of_both_ends_has_them_ticked_and_it_is_said(browser: Any, serving: Server) -> None:
    watched = opened(browser, serving)
    page = watched.page
    page.get_by_label("Run", exact=True).select_option("casual_shoes_lr_5e-4")
    page.get_by_text("No verdict yet: nothing that was logged or measured decides.").wait_for()
    ends = re.findall(r"step (\d+)", page.locator("#pick [data-do=compare]").inner_text())
    page.locator("#pick [data-do=compare]").click()
    page.get_by_text(f"is there of both step {ends[0]} and step {ends[1]}. They are ticked now: press Draw").wait_for()
    page.locator("#compare-checkpoints input:checked").nth(1).wait_for()
    ticked = page.locator("#compare-checkpoints label:has(input:checked)").all_inner_texts()
    assert [text.strip() for text in ticked] == ends
    assert page.locator("#grid dialog.cmp-full[open]").count() == 0
    closed(watched)


def test_a_page_that_is_opened_at_the_tab_shows_the_run_of_its_address_and_its_measure_section(browser: Any, serving: Server) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(f"{serving.url}/?tab=pick&run=casual_shoes_lr_5e-4")
    page.get_by_text("No verdict yet: nothing that was logged or measured decides.").wait_for()
    assert page.get_by_label("Run", exact=True).input_value() == "casual_shoes_lr_5e-4"
    page.locator("#measure-start").wait_for()  # open, since nothing decides
    page.get_by_label("Run", exact=True).select_option(FULL)
    page.locator("#pick [data-rule=held-out] svg").wait_for()
    page.wait_for_function("!document.querySelector('#measure-start')?.checkVisibility()")
    page.locator("#pick [data-do=measure]").click()
    page.locator("#measure-start").wait_for()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [1400, 390])
def test_axe_finds_nothing_on_the_tab(browser: Any, serving: Server, scheme: str, wide: int) -> None:
    watched = opened(browser, serving, viewport={"width": wide, "height": 900}, color_scheme=scheme)
    page = watched.page
    for table in page.locator("#pick summary:visible").all():
        table.click()
    assert faults(page, "#pick") == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs out of the page"
    closed(watched)


@pytest.fixture
def looking(logged: Path) -> Iterator[Server]:
    yield from start_server(logged, "--runs", str(logged / "training" / "outputs"), "serve", "--port", "0", "--read-only")


def test_a_server_that_is_read_only_shows_verdicts_and_offers_nothing_that_writes(browser: Any, looking: Server) -> None:
    watched = opened(browser, looking)
    shown = watched.page.locator("#pick [data-do]:visible").evaluate_all("(nodes) => nodes.map((node) => node.dataset.do)")
    assert shown == ["compare"]
    page = watched.page.context.new_page()
    page.goto(f"{looking.url}/cmp/vote/{FULL}")
    page.get_by_text("This server is read-only").wait_for()
    assert page.locator("#voter:visible").count() == 0
    closed(watched)
