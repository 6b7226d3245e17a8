"""Uploads to the Hugging Face Hub, by a process of its own: there the Hub may be asked, here nothing ever is.

The token is the Hub's library's to find (HF_TOKEN, or its own login) and never leaves that process: what it prints is a small answer
without anything that the Hub or the library has said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from cmp.core.present import counted
from cmp.core.progress import Progress
from cmp.core.publishing import REPOSITORIES, SharePlan
from cmp.errors import CmpError, NotFound, Refused

_MOMENT = 0.1  # seconds between two looks whether it is done
_ROOT = Path(__file__).resolve().parents[2]
_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from cmp.disk.hub_child import main; main()"


def upload(plan: SharePlan, version: str) -> Generator[Progress, None, str]:
    """Uploads a plan's files as one commit and gives the repository's address; leaving it before ends the upload.

    Raises Refused where the repository holds what this program did not write, unless it was asked to replace that; and what the Hub
    has against it.
    """
    wanted, repository = plan.wanted, str(plan.wanted.repository)
    order = {
        "folder": str(plan.draft), "files": [file.path for file in plan.files], "repository": repository,
        "kind": REPOSITORIES[wanted.kind], "force": wanted.force, "private": not wanted.public, "message": f"Written by cmp {version}",
    }  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(_ROOT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=plan.draft
    )
    assert child.stdin and child.stdout
    try:
        with child.stdin:
            child.stdin.write(json.dumps(order).encode())
        while child.poll() is None:
            yield Progress(0, len(plan.files), f"uploading {counted(len(plan.files), 'file')}")
            try:
                child.wait(_MOMENT)
            except subprocess.TimeoutExpired:
                continue
        answer = _answer(child.stdout.read())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    if "url" not in answer:
        raise _fault(answer)
    yield Progress(len(plan.files), len(plan.files), "done")
    return str(answer["url"])


def _answer(told: bytes) -> dict[str, Any]:
    """The last line of what the child printed; empty if it is none of its own."""
    lines = told.decode("utf-8", "replace").splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _fault(answer: dict[str, Any]) -> CmpError:
    """What went wrong, told in our own words; without the repository, which may be private, where jobs are not."""
    why, status = answer.get("fault"), answer.get("status")
    if why == "token":
        return Refused("no token for the Hub was found", "Set HF_TOKEN, or log in with `hf auth login`.")
    if why == "foreign":
        told = "the repository is there already and was not written by this program"
        return Refused(told, "Give another name; --force replaces in it what has the same names.")
    if status == 401:
        return Refused("the Hub does not accept the token", "Set another HF_TOKEN, or log in anew with `hf auth login`.")
    if status == 403:
        return Refused("the token may not write to the repository", "Use one with the right to write there, or another OWNER.")
    if status == 404:
        return NotFound("the Hub knows no such repository, or no such owner", "Check OWNER/NAME.")
    if status in (409, 412):
        return Refused("the repository was changed meanwhile, or is one that the token may not see", "Look at it there, and try again.")
    if status:
        return Refused(f"the Hub answered {status}", "Nothing was committed there. Try again later.")
    return Refused("the Hub gave no answer", "Check the network; a new repository may be there, still empty.")
