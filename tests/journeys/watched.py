"""A page in a real browser, and everything on it that should not have happened. Screenshots are kept in test-results/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from .conftest import Server

PICTURES = Path(__file__).resolve().parents[2] / "test-results"


class Watched:
    """A page, and everything on it that should not have happened."""

    def __init__(self, page: Any, server: Server) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self._server = server
        self._unanswered: dict[Any, str] = {}
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda fault: self.complaints.append(str(fault)))
        page.on("response", lambda answer: self.complaints.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        page.on("request", self._begun)
        for over in ("requestfinished", "requestfailed"):
            page.on(over, lambda request: self._unanswered.pop(request, None))
        page.goto(server.url)
        page.wait_for_selector("#runs-table tbody tr")

    def _begun(self, request: Any) -> None:
        self.asked.add(urlsplit(request.url).netloc)
        self._unanswered[request] = f"{request.url} {(request.post_data or '')[:200]}"

    def found(self) -> str:
        """What may tell why something that was waited for did not come."""
        try:
            told_of = self._server.get("/api/v1/jobs")[1]["jobs"]
        except OSError as fault:
            return f"the server does not answer: {fault}"
        jobs = [(told["job"], told["state"], told["done"]) for told in told_of]
        toasts = self.page.locator(".toast-body").all_inner_texts()
        return f"jobs {jobs}; toasts {toasts}; unanswered {list(self._unanswered.values())}; complaints {self.complaints}"

    def picture(self, name: str) -> None:
        PICTURES.mkdir(exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def reload(self, url: str = "") -> None:
        """Loads the page anew, or another. What the old one had asked for meanwhile is broken off, of which Gradio complains."""
        before = len(self.complaints)
        if url:
            self.page.goto(url)
        else:
            self.page.reload()
        self.page.wait_for_selector("#runs-table tbody tr", state="attached")
        broken_off = ("AbortError", "Connection errored out")
        self.complaints[before:] = [told for told in self.complaints[before:] if not any(words in told for words in broken_off)]

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def row(self, table: str, key: str) -> Any:
        return self.page.locator(f'#{table} tr[data-key="{key}"]')

    def text(self, wanted: str) -> None:
        """Waits until these words are in sight."""
        try:
            self.page.get_by_text(wanted).first.wait_for()
        except Exception as fault:
            raise AssertionError(f"{wanted!r} never came; {self.found()}") from fault

    def status(self, name: str, wanted: str, seconds: float = 60) -> str:
        """Waits until a text field holds the wanted words."""
        try:
            self.page.wait_for_function(
                "([name, wanted]) => document.querySelector(`#${name} textarea`)?.value.includes(wanted)",
                arg=[name, wanted],
                timeout=seconds * 1000,
            )
        except Exception as fault:
            fields = self.page.locator(f"#{name} textarea").evaluate_all("fields => fields.map((field) => field.value)")
            raise AssertionError(f"#{name} holds {fields}, and not {wanted!r}; {self.found()}") from fault
        return self.page.locator(f"#{name} textarea").input_value()
