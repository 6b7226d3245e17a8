"""Uploads against a small server that speaks what of the Hub is used: one commit of exactly the planned files, nothing of others
replaced, and the token told to nobody but that server.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmp.core.progress import run_through
from cmp.core.publishing import MARK, WEIGHTS, SharedFile, SharePlan, Wanted
from cmp.disk.hub import upload
from cmp.errors import CmpError, NotFound, Refused
from tests.uploads import HEAD, TOKEN, Hub, committed


def plan_in(folder: Path, **wanted: Any) -> SharePlan:
    files = {"README.md": f"---\ntitle: x\n---\n\n# x\n\n{MARK}\n", "index.html": "<p>page</p>", f"images/{'a' * 64}.webp": "picture"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "not planned.txt").write_text("stays here")
    listed = tuple(SharedFile(name, len(text), "") for name, text in files.items())
    return SharePlan("run", "run", Wanted(**wanted), folder, listed)


@pytest.mark.parametrize("kind", ["space", "model"])
def test_a_new_repository_is_private_and_gets_exactly_the_planned_files_in_one_commit(hub: Hub, tmp_path: Path, kind: str) -> None:
    plan = plan_in(tmp_path / "draft", **{kind: "me/shoes"})
    url = run_through(upload(plan, "1"))
    assert url == f"{hub.address}/{'spaces/' if kind == 'space' else ''}me/shoes"
    assert hub.made.get("private") is True or hub.made.get("visibility") == "private", "libraries say it in one way or the other"
    assert (hub.made["organization"], hub.made["name"]) == ("me", "shoes")
    assert hub.made.get("sdk") == ("static" if kind == "space" else None)
    assert committed(hub) == {one.path: (tmp_path / "draft" / one.path).read_text() for one in plan.files}
    assert sum("/commit/" in path for _, path in hub.asked) == 1 and hub.commit[0]["value"]["parentCommit"] == HEAD


def test_weights_go_where_the_hub_keeps_large_files(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # which this server does not speak
    plan, weights = plan_in(tmp_path / "draft", model="me/shoes"), b"\x08weights" * 1000
    (tmp_path / "draft" / WEIGHTS).write_bytes(weights)
    run_through(upload(replace(plan, files=(*plan.files, SharedFile(WEIGHTS, len(weights), ""))), "1"))
    digest = hashlib.sha256(weights).hexdigest()
    assert hub.large == {digest: weights}
    (pointer,) = [one["value"] for one in hub.commit if one["key"] == "lfsFile"]
    assert (pointer["path"], pointer["oid"], pointer["size"]) == (WEIGHTS, digest, len(weights)) and len(committed(hub)) == 3


def test_a_repository_of_ours_is_renewed_and_only_pictures_of_ours_go(hub: Hub, tmp_path: Path) -> None:
    old = f"images/{'b' * 64}.webp"
    hub.there = {".gitattributes": "", "README.md": f"# x\n{MARK}\n", old: "", "images/mine.png": "", "mine.txt": ""}
    run_through(upload(plan_in(tmp_path / "draft", space="me/shoes"), "1"))
    assert [one["value"]["path"] for one in hub.commit if one["key"] == "deletedFile"] == [old]
    assert not hub.made and len(committed(hub)) == 3


@pytest.mark.parametrize("there", [{"README.md": "# another's\n"}, {"model.bin": ""}, {"README.md": f"it quotes {MARK} in a line\n"}])
def test_a_repository_of_another_is_refused_unless_it_is_to_be_replaced(hub: Hub, tmp_path: Path, there: dict[str, str]) -> None:
    hub.there = there
    with pytest.raises(Refused, match="not written by this program"):
        run_through(upload(plan_in(tmp_path / "draft", model="me/shoes"), "1"))
    assert all(method == "GET" for method, _ in hub.asked)
    run_through(upload(plan_in(tmp_path / "draft", model="me/shoes", force=True), "1"))
    assert not [one for one in hub.commit if one["key"] == "deletedFile"]


@pytest.mark.parametrize(("status", "kind"), [(401, Refused), (403, Refused), (418, Refused), (404, NotFound)])
def test_a_server_that_fails_and_repeats_the_token_does_not_make_us_tell_it(
    hub: Hub, tmp_path: Path, status: int, kind: type[CmpError], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    hub.failing = status
    with pytest.raises(kind) as found:
        run_through(upload(plan_in(tmp_path / "draft", space="me/shoes"), "1"))
    out, err = capfd.readouterr()
    told = f"{found.getrepr(style='long', showlocals=True)} {found.value.told} {out} {err} {caplog.text}"
    assert TOKEN not in told and TOKEN[3:] not in told
    assert f"Bearer {TOKEN}" in hub.tokens, "it was asked with the token"


def test_the_hubs_own_login_is_used_where_no_token_is_set(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
    run_through(upload(plan_in(tmp_path / "draft", space="me/shoes"), "1"))
    assert f"Bearer {TOKEN}" in hub.tokens and hub.commit


def test_without_a_token_nothing_is_asked(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(Refused, match="no token"):
        run_through(upload(plan_in(tmp_path / "draft", space="me/shoes"), "1"))
    assert hub.asked == []


def test_no_answer_is_told_as_such(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Refused, match="no answer"):
        run_through(upload(plan_in(tmp_path / "draft", space="me/shoes"), "1"))


def test_leaving_an_upload_ends_it(hub: Hub, tmp_path: Path) -> None:
    work = upload(plan_in(tmp_path / "draft", space="me/shoes"), "1")
    next(work)
    work.close()
    assert hub.commit == []
