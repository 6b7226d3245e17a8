"""The Storage tab in a real browser with real pointer events: preview, do, undo; and what there is of it on a read-only server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.disk.trash import list_trash
from tests.storing import RUN, contents, frozen_run, grow_old
from tests.support import Training, bench_of, convert

from .conftest import Server, start_server
from .watched import Watched

pytestmark = pytest.mark.browser

LANDMARKS = {"resultTypes": ["violations"], "rules": {"region": {"enabled": False}}}


@pytest.fixture
def made(tmp_path: Path) -> Training:
    made = frozen_run(tmp_path, (500, 1000, 1500))
    convert(made)
    grow_old(tmp_path)
    return made


def serving(made: Training, *more: str) -> Iterator[Server]:
    home = made.outputs.parent / "home"
    yield from start_server(home, "--runs", str(made.outputs), "--bases", str(made.bases), "serve", "--port", "0", *more)


@pytest.fixture
def server(made: Training) -> Iterator[Server]:
    yield from serving(made)


@pytest.fixture
def storage(page: Watched) -> Watched:
    """The page with the Storage tab open and measured."""
    return opened(page)


def opened(page: Watched) -> Watched:
    page.tab("Storage")
    page.page.wait_for_selector("#storage-overview .cmp-disk")
    return page


def preview(page: Watched, *off: str) -> Any:
    """Presses Preview with these unticked, and gives the plan once it is there."""
    for name in off:
        page.page.get_by_label(name).click()
    page.page.click("#storage-preview")
    plan = page.page.locator("#storage-plan")
    plan.locator(".cmp-group, .cmp-kept").first.wait_for()
    return plan


def do(page: Watched, wanted: str) -> str:
    page.page.click("#storage-do")
    page.page.wait_for_selector("#storage-confirm #storage-yes")
    question = page.page.locator("#storage-question textarea").input_value()
    page.page.click("#storage-yes")
    page.status("storage-status", wanted)
    return question


def bring_back(page: Watched, key: str, act: str) -> None:
    page.page.locator(f'#storage-overview .cmp-undo tr[data-key="{key}"]').get_by_role("button", name=re.compile(act)).click()


def test_what_is_occupied_is_told_part_by_part(storage: Watched, made: Training) -> None:
    run = storage.page.locator(f'#storage-overview li[data-key="{RUN}"]')
    bar = run.get_by_role("img").first.get_attribute("aria-label")
    assert bar and all(part in bar for part in ("checkpoints", "converted forms", "logs"))
    key = storage.page.locator("#storage-overview section:has(> .cmp-runs) > .cmp-legend").inner_text()
    assert all(part in key for part in ("checkpoints", "converted forms", "logs")), "told before a run is opened"
    run.get_by_role("button", name="lora_casual_shoes").click()
    assert run.locator("tbody tr").count() == 3 and "Could be freed" in run.inner_text()
    assert "free" in storage.page.locator("#storage-overview .cmp-disk").inner_text()


def test_a_preview_changes_nothing_and_no_is_no(storage: Watched, made: Training) -> None:
    before = contents(made.outputs)
    plan = preview(storage)
    groups = plan.locator(".cmp-group").evaluate_all("found => found.map(one => one.dataset.group)")
    assert groups[:2] == ["converted", "compact"], "what costs nothing to lose is offered first"
    assert "resuming a training from it needs Restore" in plan.inner_text() and "afterwards" in plan.inner_text()
    assert "held-out" in plan.locator(".cmp-kept").text_content(), "without a verdict checkpoints stay, and it is said why"
    storage.page.click("#storage-do")
    storage.page.click("#storage-no")
    storage.page.wait_for_selector("#storage-yes", state="hidden")
    assert contents(made.outputs) == before
    storage.picture("storage")


def test_preview_do_and_undo_leave_everything_as_it_was(storage: Watched, made: Training) -> None:
    before = contents(made.run)
    plan = preview(storage, "the best by the verdict")
    assert plan.locator('[data-group="checkpoint"] li').count() == 2
    question = do(storage, "done:")
    assert "compact 1 file" in question and "move 2 things to the trash" in question
    assert sorted(path.name for path in (made.run / "checkpoints").iterdir()) == ["checkpoint-1500"]
    assert (made.checkpoint(1500) / "model.compact.safetensors").exists()
    trashed = {str(each.path): each.id for each in list_trash(made.run)}
    for path, key in trashed.items():
        bring_back(storage, key, "Bring back")
        storage.status("storage-status", f"brought back {path}")
    bring_back(storage, f"{RUN}@1500", "Restore")
    storage.status("storage-status", f"restored {made.checkpoint(1500) / 'model.safetensors'}")
    storage.page.wait_for_selector("#storage-overview .cmp-undo", state="detached")
    assert contents(made.run) == before


def test_the_trash_is_emptied_only_after_it_was_said_that_this_is_final(storage: Watched, made: Training) -> None:
    preview(storage, "the best by the verdict", "Frozen weights of dumps")
    do(storage, "done:")
    assert len(list_trash(made.run)) == 2
    storage.page.locator("#storage-days textarea, #storage-days input").first.fill("30")
    storage.page.click("#storage-empty")
    storage.page.get_by_text("Nothing would go.").wait_for()
    storage.page.locator("#storage-days textarea, #storage-days input").first.fill("")
    storage.page.click("#storage-empty")
    storage.page.wait_for_selector('#storage-plan [data-group="delete"]')
    assert "final" in do(storage, "done: deleted 2") and list_trash(made.run) == ()


def test_what_has_changed_since_the_preview_is_not_done_and_shown_anew(storage: Watched, made: Training) -> None:
    preview(storage, "the best by the verdict", "Frozen weights of dumps")
    bench_of(made).star(f"{RUN}@500")
    before = contents(made.run)
    storage.page.click("#storage-do")
    storage.page.click("#storage-yes")
    storage.status("storage-status", "changed since this was shown")
    storage.page.wait_for_function("document.querySelectorAll('#storage-plan [data-group=checkpoint] li').length === 1")
    assert contents(made.run) == before
    do(storage, "done:")
    assert made.checkpoint(500).exists() and not made.checkpoint(1000).exists()


def test_what_cannot_be_meant_is_told_and_nothing_is_shown_for_it(storage: Watched) -> None:
    storage.page.locator("#storage-size textarea, #storage-size input").first.fill("a lot")
    storage.page.click("#storage-preview")
    storage.page.get_by_text("the size is 'a lot'").wait_for()
    assert storage.page.locator("#storage-plan .cmp-group").count() == 0


def test_a_ticked_run_is_looked_at_alone(made: Training, storage: Watched) -> None:
    import shutil

    shutil.copytree(made.run, made.outputs / "other", symlinks=True)
    grow_old(made.outputs)
    storage.reload()
    opened(storage)
    storage.page.locator('#storage-overview li[data-key="other"]').wait_for()
    storage.page.get_by_label("only Other").click()
    storage.page.get_by_text("a preview is about it alone").wait_for()
    storage.page.wait_for_timeout(300)  # the tick is told to the server before the next click can use it
    plan = preview(storage)
    assert "other/checkpoints" in plan.inner_text() and f"{RUN}/checkpoints" not in plan.inner_text()


def test_a_job_is_found_again_by_a_page_that_is_opened_anew(storage: Watched, made: Training) -> None:
    preview(storage, "the best by the verdict")
    storage.page.click("#storage-do")
    storage.page.click("#storage-yes")
    storage.page.wait_for_selector("#storage-status textarea")
    storage.reload()  # whether it is still at work or not, it comes to its end without a page
    for _ in range(100):
        if len(list_trash(made.run)) == 2 and (made.checkpoint(1500) / "model.compact.json").exists():
            break
        storage.page.wait_for_timeout(100)
    opened(storage)
    storage.page.wait_for_function("document.querySelectorAll('#storage-overview .cmp-undo tbody tr').length === 3")


def test_an_answer_that_comes_late_does_not_leave_the_page_waiting(storage: Watched, made: Training) -> None:
    """The clock is told to stop, and that is known to the page only after something was begun."""
    late: list[tuple[Any, Any]] = []

    def hold(route: Any) -> None:
        answer = route.fetch()
        if not late and '"active":false' in answer.text().replace(" ", ""):
            late.append((route, answer))
        else:
            route.fulfill(response=answer)

    storage.page.route("**/gradio_api/**", hold)
    storage.tab("Runs")
    storage.tab("Storage")
    for _ in range(200):
        storage.page.wait_for_timeout(50)
        if late:
            break
    preview(storage)
    storage.page.click("#storage-do")
    storage.page.click("#storage-yes")
    storage.page.wait_for_selector("#storage-status textarea")
    (route, answer), *_ = late
    route.fulfill(response=answer)
    storage.status("storage-status", "done:")


def test_axe_finds_nothing_to_complain_of_light_dark_or_narrow(browser: Any, server: Server) -> None:
    for look in ("light", "dark", "narrow"):
        width, scheme = 390 if look == "narrow" else 1400, "dark" if look == "dark" else "light"
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(60_000)
        page = opened(Watched(context.new_page(), server))
        if look == "dark":
            page.page.evaluate("document.body.classList.add('dark')")
        preview(page, "the best by the verdict")
        page.page.locator("#storage-overview .cmp-open").first.click()
        page.page.locator("#storage-plan summary").first.click()
        assert (look, faults(page, "#storage-overview"), faults(page, "#storage-plan")) == (look, [], [])
        assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        context.close()


def faults(page: Watched, place: str) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page.page, context=place, options=LANDMARKS).response["violations"]
    return [f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')}" for one in found for node in one["nodes"]]


def test_a_read_only_server_shows_what_is_occupied_and_has_nothing_that_changes_it(made: Training, browser: Any) -> None:
    before = contents(made.outputs)
    for server in serving(made, "--read-only"):
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.set_default_timeout(60_000)
        page = opened(Watched(context.new_page(), server))
        assert page.page.locator("#storage-overview li[data-key]").count() == 1
        for name in ("preview", "do", "yes", "empty", "plan", "status"):
            assert page.page.locator(f"#storage-{name}").count() == 0
        assert page.page.locator("#storage-overview input, #storage-overview .cmp-button").count() == 0
        known = str(server.get("/config")[1])
        assert "storage-overview" in known and "storage-preview" not in known and "storage-yes" not in known
        context.close()
    assert contents(made.outputs) == before
