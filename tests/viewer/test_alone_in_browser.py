"""The page that stands alone, opened from a disk in a browser that has no network: everything is there, and nothing is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.core.views import View
from cmp.viewer import asset
from cmp.workbench.exporting import Matrix, write_export
from tests.exporting import SCRIPT, shown

Open = Callable[..., Any]


@pytest.fixture
def opened(context: Any, watch: Callable[[Any, str], list[str]], tmp_path: Path) -> Iterator[Open]:
    """Writes a page and opens it by its path; it must ask for nothing but itself and complain of nothing."""
    pages: list[tuple[Any, list[str], list[str]]] = []

    def open_page(matrix: Matrix) -> Any:
        target = tmp_path / "a grid.html"
        write_export("html", matrix, target, force=True)
        context.set_offline(True)
        page = context.new_page()
        page.set_viewport_size({"width": 1400, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        complaints = watch(page, target.as_uri())
        page.goto(target.as_uri())
        pages.append((page, complaints, asked))
        return page

    yield open_page
    for page, complaints, asked in pages:
        assert page.evaluate("window.pwned") is None
        outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
        assert [text for text in complaints if not text.startswith("blob:")] == [] and outside == []
        assert sum(url.startswith("file:") for url in asked) == 1
        page.close()
    context.set_offline(False)


def pictures(page: Any) -> list[list[Any]]:
    """Of each row the pictures' widths as the browser decoded them, None where there is none."""
    return page.evaluate(  # type: ignore[no-any-return]  # and not wait_for_function: the page's policy forbids what that does
        """async () => {
          const all = [...document.querySelectorAll("td.cmp-cell img")];
          await Promise.all(all.map((img) => { img.loading = "eager"; return img.decode().catch(() => null); }));
          const cells = (row) => [...row.querySelectorAll("td.cmp-cell")];
          return [...document.querySelectorAll("tr:has(td.cmp-cell)")].map((row) =>
            cells(row).map((cell) => cell.querySelector("img")?.naturalWidth ?? null));
        }"""
    )


def heads(page: Any) -> list[str]:
    return page.locator(".cmp-head.is-col .cmp-label").all_text_contents()  # type: ignore[no-any-return]


def test_it_shows_every_picture_from_the_disk_alone(opened: Open, tmp_path: Path) -> None:
    grid = shown(tmp_path / "home")
    page = opened(Matrix(grid.bench, grid.value))
    assert heads(page) == ["base model", "step 500", "step 1000", "step 1500"]
    assert pictures(page) == [[64] * 4] * 4
    assert page.title() == grid.spec.title and page.locator(".cmp-title").text_content() == grid.spec.title
    assert SCRIPT in page.locator(".cmp-matrix").text_content()


def test_what_failed_and_what_was_never_drawn_is_told(opened: Open, tmp_path: Path) -> None:
    grid = shown(tmp_path / "home", faults=True)
    gone = grid.tiles[5].path
    assert gone
    gone.write_bytes(b"no picture")
    page = opened(Matrix(grid.bench, grid.value))
    assert sum(width is None for row in pictures(page) for width in row) == 3
    faults = page.locator(".cmp-fault:visible").all_text_contents()
    assert len(faults) == 2 and any("x.pt. Look there." in text for text in faults) and "This picture could not be read." in faults


def test_it_opens_as_the_view_has_it_and_can_be_arranged_on(opened: Open, tmp_path: Path) -> None:
    grid = shown(tmp_path / "home")
    view = View({"checkpoint": "y", "seed": "x", "prompt": ""}, {"checkpoint": ("shoes@1500",)}, {"checkpoint": frozenset({"base model"})})
    page = opened(Matrix(grid.bench, grid.value, view))
    assert heads(page) == ["seed 0", "seed 1"] and pictures(page) == [[64, 64]] * 3
    assert page.locator(".cmp-head.is-row .cmp-label").all_text_contents() == ["step 1500", "step 500", "step 1000"]
    assert '"base model"' not in page.locator('script[type="application/json"]').first.text_content()
    page.locator(".cmp-selectors select").select_option(index=1)
    assert pictures(page) == [[64, 64]] * 3


def test_the_step_slider_works_without_a_server(opened: Open, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    grid = shown(tmp_path / "home")
    page = opened(Matrix(grid.bench, grid.value))
    page.get_by_text("Step slider").click()
    expect(page.locator("td.cmp-cell")).to_have_count(4)
    expect(page.locator(".cmp-step")).to_contain_text("step 1500")
    page.get_by_label("Step before").click()
    expect(page.locator(".cmp-step")).to_contain_text("step 1000")
    assert pictures(page) == [[64]] * 4


def test_a_cell_opens_large_with_its_details(opened: Open, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    grid = shown(tmp_path / "home", side=400, prompts=("a shoe",), seeds=1)
    page = opened(Matrix(grid.bench, grid.value))
    assert pictures(page) == [[256] * 4], "small ones in the grid"
    page.locator("td.cmp-cell").nth(2).click()
    large = page.locator("dialog .cmp-full-image.is-own")
    expect(large).to_have_class(re.compile("is-loaded"))
    assert large.evaluate("(img) => img.naturalWidth") == 400
    details = page.locator("dialog .cmp-full-facts").text_content()
    assert "shoes@1000" in details and "0.5 s" in details


def test_pictures_are_compared_and_their_settings_copied_on_the_disk_too(opened: Open, tmp_path: Path) -> None:
    grid = shown(tmp_path / "home", prompts=("a shoe",), seeds=1)
    page = opened(Matrix(grid.bench, grid.value))
    page.get_by_role("button", name="Change", exact=True).click()
    page.locator(".cmp-change-dot").nth(2).wait_for()
    page.locator("td.cmp-cell").nth(2).click()
    page.keyboard.press("Shift+M")
    page.get_by_text("of the pixels are equal").wait_for()
    assert page.locator("canvas.is-loaded").count() == 1
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { window.copied = text; } } })")
    page.get_by_role("button", name="Copy settings").last.click()
    page.get_by_role("status").get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("copied").startswith("a shoe")


def test_the_base_model_has_the_key_by_which_the_viewer_knows_that_it_cannot_be_starred(tmp_path: Path) -> None:
    value = shown(tmp_path / "home").value
    steps = next(axis["values"] for axis in value["axes"] if axis["key"] == value["step_axis"])
    assert steps[0]["details"] == [["checkpoint", "base model"]]
    assert f'const BASE = "{steps[0]["key"]}"' in asset("full_panel.js")
