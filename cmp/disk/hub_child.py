"""What uploads, within a process that does nothing else. See hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp.core.publishing import MARK, OWN_IMAGE, README

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_BARE = frozenset((".gitattributes", ".gitignore"))  # what a repository without content may hold


def main() -> None:
    """Reads an order from standard input and prints what became of it."""
    order = json.load(sys.stdin)
    print(json.dumps(_carry_out(order)), flush=True)


def _carry_out(order: Mapping[str, Any]) -> dict[str, Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    constants.HF_HUB_OFFLINE = False  # this one process was asked to upload; what else this program does stays offline
    token = get_token()
    if not token:
        return {"fault": "token"}
    api, name, kind = HfApi(token=token), order["repository"], order["kind"]
    try:
        head, there = _repository(api, order)
        if not order["force"] and there is not None and not _is_ours(api, order, there):
            return {"fault": "foreign"}
        adds = [CommitOperationAdd(path, str(Path(order["folder"], path))) for path in order["files"]]
        stale = sorted(path for path in there or () if OWN_IMAGE.match(path) and path not in order["files"])
        api.create_commit(
            name, [*adds, *map(CommitOperationDelete, stale)], commit_message=order["message"], repo_type=kind, parent_commit=head
        )
    except HfHubHTTPError as fault:
        return {"status": fault.response.status_code if fault.response is not None else None}
    return {"url": f"{api.endpoint}/{'spaces/' if kind == 'space' else ''}{name}"}


def _repository(api: HfApi, order: Mapping[str, Any]) -> tuple[str | None, list[str] | None]:
    """The newest commit, and the files of a repository that was there before; one that was not is made."""
    from huggingface_hub.errors import RepositoryNotFoundError

    name, kind = order["repository"], order["kind"]
    try:
        found = api.repo_info(name, repo_type=kind)
    except RepositoryNotFoundError:
        api.create_repo(name, repo_type=kind, private=order["private"], space_sdk="static" if kind == "space" else None)
        return api.repo_info(name, repo_type=kind).sha, None
    return found.sha, [file.rfilename for file in getattr(found, "siblings", None) or ()]


def _is_ours(api: HfApi, order: Mapping[str, Any], there: list[str]) -> bool:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    if README not in there:
        return set(there) <= _BARE
    address = hf_hub_url(order["repository"], README, repo_type=order["kind"], endpoint=api.endpoint)
    answer = get_session().get(address, headers=build_hf_headers(token=api.token))
    hf_raise_for_status(answer)
    return MARK in answer.text.splitlines()
