"""Texts of a run in Markdown and YAML: whatever they hold, they come out as the text that they are."""

from __future__ import annotations

import html
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cmp.core.cards import Card, hub_id, markdown, model_card, page_readme, yaml_text
from cmp.core.publishing import MARK

NASTY = [
    "--- a", "# x", "1. x", "- x", "* x", "+ x", "> x", "=== x", "a | b", "`x`", "```", "<img src=x onerror=alert(1)>", "[x](javascript:a)",
    "![x](y)", "&lt;", "a\nb\n---\nc", "${x}", "$$x$$", "_x_", "**x**", "~~x~~", "https://evil.example", "www.evil.example",
    "me@evil.example", "| --- |", "<!-- x", "-->", "\\", "a  ", ":smile:", "{% raw %}", "key: value", "'", '"', "%x", "@x", "?", "null",
    "0x1f",
    "\x85\u2028a\x7f\x00",
]  # fmt: skip


def shown(text: str) -> str:
    return MarkdownIt("gfm-like" if _has_linkify() else "commonmark", {"html": True}).render(text)


def _has_linkify() -> bool:
    try:
        import linkify_it  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("text", NASTY)
def test_a_nasty_text_is_a_paragraph_of_that_text(text: str) -> None:
    if words := " ".join(text.split()):
        found = re.fullmatch(r"<p>(.*)</p>\n", shown(markdown(text)))
        assert found and html.unescape(found[1]) == "".join(filter(str.isprintable, words))


@given(st.text(max_size=60))
def test_any_text_is_a_cell_of_a_table_and_no_more(text: str) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    rendered = parser.render(f"| a | b |\n| --- | --- |\n| {markdown(text)} | end |")
    assert re.findall(r"<(\w+)", rendered.partition("<tbody>")[2]) == ["tr", "td", "td"] and rendered.count("<td>end</td>") == 1


@given(st.text(max_size=60) | st.sampled_from(NASTY))
def test_any_text_comes_back_from_yaml(text: str) -> None:
    assert yaml.safe_load(f"a: {yaml_text(text)}\nb: 1") == {"a": re.sub("[\ud800-\udfff]", "\ufffd", text), "b": 1}


def card(text: str) -> str:
    return model_card(
        Card(
            text, "me/x", None, text, (text,), (text,), examples=((text, "images/a.webp"),), settings=((text, text),), reading=(text,),
            facts=((text, text),), instance=text, curve="images/b.png",
        )
    )  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_a_card_has_the_same_parts_whatever_its_texts_are(text: str) -> None:
    def parts(told: str) -> list[str]:
        body = re.sub(r"\A---\n.*?\n---\n", "", told, flags=re.DOTALL)
        return re.findall(
            r"<(h[12]|table|tr|td|th|hr|img|script|pre|blockquote|ul|ol|a)\b", MarkdownIt("commonmark").enable("table").render(body)
        )

    told = card(text)
    front = yaml.safe_load(re.match(r"\A---\n(.*?)\n---\n", told, re.DOTALL)[1])  # type: ignore[index]
    assert front["widget"][0]["output"]["url"] == "images/a.webp" and front["tags"] == ["lora", "diffusers", "text-to-image"]
    assert "license" not in front and "base_model" not in front
    if text.split():
        assert parts(told) == parts(card("plain words"))
    assert told.splitlines().count(MARK) == 1 and page_readme(text, text).splitlines().count(MARK) == 1


@pytest.mark.parametrize(
    ("base", "told"),
    [("stabilityai/sd-turbo", True), ("/models/sd", False), ("../a/b", False), ("a/b/c", False), ("x", False), (None, False)],
)
def test_only_what_looks_like_an_id_of_the_hub_is_one(base: str | None, told: bool) -> None:
    assert (hub_id(base) is not None) is told
