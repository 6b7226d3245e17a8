"""What is remembered: by several processes at once, and without any harm where nothing can be remembered."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cmp.disk.store import Store, subject_of
from cmp.errors import Refused
from tests.support import as_nobody


def test_a_fact_is_remembered_replaced_and_forgotten_across_starts(tmp_path: Path) -> None:
    Store(tmp_path / "new" / "home").put("name", "run", {"ü": [1, None]})
    again = Store(tmp_path / "new" / "home")
    assert again.get("name", "run") == {"ü": [1, None]} and again.get("name", "other") is None and again.get("star", "run") is None
    again.put("name", "run", "second")
    assert again.all("name") == {"run": "second"}
    again.put("name", "run", None)
    assert again.get("name", "run") is None and again.all("name") == {}


def test_what_was_computed_once_is_not_computed_again(tmp_path: Path) -> None:
    calls: list[int] = []
    store = Store(tmp_path)
    assert [store.remembered("digest", "file", lambda: calls.append(1) or "d") for _ in range(3)] == ["d"] * 3
    assert Store(tmp_path).remembered("digest", "file", lambda: pytest.fail("computed again")) == "d"
    assert calls == [1]


def test_subjects_that_are_no_text_are_remembered_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = [os.fsdecode(b"/r/caf\xe9"), os.fsdecode(b"/r/caf\xe8"), "half \ud83d", "quote ' \"; --"]
    for i, name in enumerate(names):
        store.put("name", name, i)
    assert [store.get("name", name) for name in names] == [0, 1, 2, 3]


def test_a_folders_subject_is_the_same_by_whichever_way_one_comes_to_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert subject_of(tmp_path / "link") == subject_of(tmp_path / "real" / ".." / "real")
    assert subject_of(tmp_path / os.fsdecode(b"caf\xe9")).encode()


def test_two_processes_that_begin_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom cmp.disk.store import Store\nstore = Store(Path(sys.argv[1]))\n"
        "for i in range(40): store.put('k', f'{sys.argv[2]}-{i}', i); store.get('k', 'a-0')"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "home"), name]) for name in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(Store(tmp_path / "home").all("k")) == 80


def test_threads_of_one_process_share_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    threads = [threading.Thread(target=lambda n=n: [store.put("k", f"{n}-{i}", i) for i in range(20)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.all("k")) == 80


# where nothing can be remembered


def refuses(store: Store) -> bool:
    """Whether reading degrades to nothing and writing is refused with what to do."""
    assert store.get("k", "s") is None and store.all("k") == {} and store.remembered("k", "s", lambda: 7) == 7
    with pytest.raises(Refused) as fault:
        store.put("k", "s", 1)
    assert "CMP_HOME" in fault.value.hint
    return True


def test_a_home_that_is_a_file_or_below_one_is_refused_for_writing_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert refuses(Store(tmp_path / "file")) and refuses(Store(tmp_path / "file" / "home"))


def test_a_home_without_permission_is_refused_for_writing_only(open_path: Path) -> None:
    open_path.chmod(0o555)
    assert as_nobody(lambda: refuses(Store(open_path / "home"))) is True


def test_a_database_that_may_only_be_read_does_not_end_in_a_traceback(open_path: Path) -> None:
    Store(open_path).put("k", "known", 1)
    (open_path / "state.db").chmod(0o444)
    open_path.chmod(0o555)

    def told() -> object:
        with pytest.raises(Refused):
            Store(open_path).put("k", "s", 1)
        return Store(open_path).get("k", "s")

    assert as_nobody(told) is None


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_database_is_refused_for_writing_only(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    assert refuses(Store(tmp_path))


def test_a_database_that_breaks_while_it_is_open_does_not_end_in_a_traceback(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("k", "s", 1)
    with store.database() as connection:
        connection.execute("DROP TABLE facts")
    assert refuses(store)


def test_a_cells_picture_lies_below_home_by_its_key(tmp_path: Path) -> None:
    assert Store(tmp_path).cell_path("ab" + "0" * 62) == tmp_path / "cells" / "ab" / ("ab" + "0" * 62 + ".png")
