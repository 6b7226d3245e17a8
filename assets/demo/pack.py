"""Packs the demo into one archive and records the digest of every file in it.

    python assets/demo/pack.py --input work/demo

The six raw checkpoints hold the same frozen UNet six times, and the base model holds it once more. An xz dictionary that reaches
from each to the next finds the repetition, so the archive stores it once and still unpacks to the very bytes that were written.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import re
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
FOLDERS = ("bases", "data", "training")
DICTIONARY = 64 << 20  # bytes; unpacking needs this much memory, so no larger than helps


def files_in_order(folder: Path) -> list[Path]:
    """Every file, those of one name one behind the other: near duplicates come close, steps in ascending order."""
    found = [path for top in FOLDERS for path in (folder / top).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: (path.suffix, path.name, _natural(path.relative_to(folder).as_posix())))


def _natural(text: str) -> list[str]:
    return [part.zfill(9) if part.isdigit() else part for part in re.split(r"([0-9]+)", text)]


def write_archive(folder: Path, files: list[Path], archive: Path) -> None:
    """A tar without owners, whose head tells the unpacked size, so that a reader can ask for room before it unpacks."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": DICTIONARY}]
    head = {"CMP.unpacked_bytes": str(sum(path.stat().st_size for path in files))}
    with (
        lzma.open(archive, "wb", format=lzma.FORMAT_XZ, filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, pax_headers=head) as tar,
    ):
        for path in files:
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    member.mtime = int(member.mtime)  # a fraction would cost every member a header of its own
    return member


def write_digests(folder: Path, files: list[Path], sums: Path) -> None:
    """The form of `sha256sum`, sorted by path: `sha256sum -c` in the unpacked folder checks it."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}" for path in files]
    sums.write_text("\n".join(sorted(lines, key=lambda line: line[66:])) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="what runs.py wrote")
    parser.add_argument("--archive", type=Path, default=HERE / "demo.tar.xz")
    parser.add_argument("--sums", type=Path, default=HERE / "SHA256SUMS")
    asked = parser.parse_args()
    files = files_in_order(asked.input)
    half = asked.archive.with_suffix(".part")
    write_archive(asked.input, files, half)
    half.replace(asked.archive)
    write_digests(asked.input, files, asked.sums)
    raw = sum(path.stat().st_size for path in files)
    print(f"{len(files)} files, {raw / 1e6:.1f} MB, packed to {asked.archive.stat().st_size / 1e6:.1f} MB: {asked.archive}")


if __name__ == "__main__":
    main()
