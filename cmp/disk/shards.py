"""Opens a component's weights whatever they lie in: one safetensors file, several with an index, or a torch file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cmp.core.runs import COMPACT
from cmp.disk.json_table import read_json_table
from cmp.disk.tensors import Header, Identity, identify, join_headers, read_header
from cmp.errors import Unreadable

INDEX = ".index.json"
_LARGEST_INDEX = 20_000_000  # bytes


def is_compact(file: Path | None) -> bool:
    """Whether a weights file is what is left of a dump that was compacted."""
    return file is not None and file.name.endswith(COMPACT)


def open_header(file: Path, *, links: bool = False) -> Header:
    """The table of contents behind a weights file or an index of shards; raises Unreadable. Unchanged files are read once.

    Shards may be `links` in a base model, as the Hugging Face cache has them, and not in a run, which must not lead out of its folder.
    """
    if is_compact(file):
        from cmp.disk.compact import open_compacted  # most runs hold none

        return open_compacted(file)
    if file.name.endswith(INDEX):
        return join_headers(("", _header(shard, identify(shard))) for shard in _shards(file, links))
    return _header(file, identify(file))


@lru_cache(maxsize=1024)  # a page that is open looks at every checkpoint every few seconds
def _header(file: Path, identity: Identity) -> Header:
    if file.suffix == ".safetensors":
        return read_header(file)
    from cmp.disk.pickled import read_pickled_header  # most runs hold none

    return read_pickled_header(file)


def _shards(index: Path, links: bool) -> list[Path]:
    """The files that an index names, all of them there; a name that leads elsewhere is refused."""
    named = read_json_table(index, most=_LARGEST_INDEX).get("weight_map")
    if not isinstance(named, dict):
        raise Unreadable(f"{index} is no index of shards: it has no weight_map", "The file is damaged; copy it again.")
    names = sorted({str(name) for name in named.values()})
    for name in names:
        if "/" in name or "\\" in name or name in ("", ".", "..") or not name.endswith((".safetensors", ".bin")):
            raise Unreadable(f"{index} names the file {name[:120]!r}", "An index may only name weights files in its own folder.")
        if not links and (index.parent / name).is_symlink():
            raise Unreadable(f"{index.parent / name} is a link", "Links are not followed.")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing or not names:
        raise Unreadable(
            f"{index} is incomplete: {len(missing)} of {len(names)} files are missing, the first is {missing[0] if missing else 'any'}",
            "It may still be being written; it is picked up when it is whole.",
        )
    return [index.parent / name for name in names]
