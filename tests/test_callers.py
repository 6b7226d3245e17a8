"""What is done for whom: visitors change nothing, name no path and learn no place."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Busy, CmpError, NotFound, Refused, TooOften
from cmp.jobs import MOST_JOBS
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for, caller
from cmp.workbench.curtain import Curtain
from cmp.workbench.easel import existing_vaes
from tests.support import Training, bench_of, origin_run
from tests.test_read_only import CHANGES, RUN

VISITOR = Caller(owner=False, address="192.0.2.1")
GRID = GridSpec((None,), (Prompt("a"),), samplings=(Sampling(steps=1),))


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_change_or_draw_anything_is_refused_to_a_visitor(tmp_path: Path, change: str) -> None:
    made = origin_run(tmp_path)
    bench = bench_of(made)
    before = sorted(made.run.rglob("*"))
    with acting_for(VISITOR), pytest.raises(CmpError):
        CHANGES[change](bench, made)
    assert sorted(made.run.rglob("*")) == before and not bench.jobs.records() and not bench.added_folders()


PATHS: dict[str, Callable[[Workbench, Training], object]] = {
    "find": lambda bench, made: bench.find(str(made.run)),
    "show": lambda bench, made: bench.show(str(made.checkpoint(500))),
    "curves": lambda bench, made: bench.curves_at(str(made.run.parent.parent / "logs")),
    "logs": lambda bench, made: bench.curves_at("nobody", (), str(made.run.parent.parent / "logs")),
    "restore": lambda bench, made: list(bench.restore(str(made.run / ".cmp-trash" / "x"))),
}


@pytest.mark.parametrize("who", [VISITOR, Caller(by_id=True)], ids=["a visitor", "the owner over REST"])
@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_taken_for_an_id_that_there_is_not(tmp_path: Path, name: str, who: Caller) -> None:
    made = origin_run(tmp_path)
    with acting_for(who), pytest.raises((NotFound, Refused)):
        PATHS[name](bench_of(made), made)


def test_a_visitor_names_no_vae_and_no_base(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = bench_of(made)
    with acting_for(VISITOR):
        with pytest.raises(Refused, match="VAE"):
            existing_vaes("/etc/passwd")
        with pytest.raises(Refused, match="base"):
            bench.plan_grid(GRID, [bench.find(RUN)[0]], Answers(None, "/etc"))
        assert existing_vaes("base") == '"base"'


def test_a_thread_of_its_own_works_for_the_owner() -> None:
    seen: list[Caller] = []
    with acting_for(VISITOR):
        assert caller() == VISITOR
        thread = threading.Thread(target=lambda: seen.append(caller()))
        thread.start()
        thread.join()
    assert seen == [Caller()] and caller() == Caller()


def test_in_a_space_everybody_draws_within_limits_and_not_too_often(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,), (made.bases,), mode="space", read_only=True))
    with acting_for(VISITOR):
        with pytest.raises(BadInput, match="31 denoising steps"):
            bench.require_drawing(GridSpec((None,), (Prompt("a"),), samplings=(Sampling(steps=31),)))
        for _ in range(6):
            bench.require_drawing(GRID)
        with pytest.raises(TooOften) as told:
            bench.require_drawing(GRID)
        assert told.value.retry_after > 0 and told.value.http_status == 429
        with pytest.raises(Refused, match="read-only"):
            bench.star(f"{RUN}@500")


def test_visitors_of_many_addresses_queue_no_more_grids_than_there_is_room_for(tmp_path: Path) -> None:
    made, done = origin_run(tmp_path), threading.Event()
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,), (made.bases,), mode="space", read_only=True))
    waiting = [bench.jobs.start("grid", "", 1, lambda: iter([done.wait(60)])) for _ in range(MOST_JOBS)]
    try:
        with acting_for(Caller(owner=False, address="192.0.2.2")), pytest.raises(Busy, match=f"{MOST_JOBS} jobs"):
            bench.start_grid(GRID, [bench.find(RUN)[0]])
        assert len(bench.jobs.records()) == MOST_JOBS
    finally:
        for job in waiting:
            bench.jobs.cancel(job.id)
        done.set()


def test_the_curtain_takes_places_out_of_texts_and_fields_and_leaves_the_rest(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = bench_of(made)
    value = {"id": "a/b", "path": "/x", "note": f"{made.run}/checkpoints is at {tmp_path}/home", "many": [f"{made.outputs}", 3, None],
             "url": "https://example.org/a", "converted": {"lora": f"{made.run}/x", "webui": None}}  # fmt: skip
    told = Curtain(bench).public(value)
    assert str(tmp_path) not in str(told) and "path" not in told and told["url"] == value["url"] and told["many"][1:] == [3, None]
    assert told["note"].startswith(f"{RUN}/checkpoints") and told["converted"] == {"lora": True, "webui": False}
    assert Curtain(bench).hide({"path": str(made.run)}) == {"path": RUN}


HIDDEN = "/mnt/jane/secret"
SAID: dict[str, Callable[[str], object]] = {
    "a setting": lambda place: {"settings": {"train_data_dir": place, "output_dir": f"{place}/out put"}},
    "a verdict": lambda place: {"reason": f"the loss of the 3 images in {place}/held is lowest"},
    "a VAE": lambda place: {"jobs": [{"title": f"grid with vae={place}/x.pt", "order": {"vae": f"{place}/x.pt"}}]},
    "a matrix as text": lambda place: json.dumps({"note": f'x:"{place}/a"', "n": [1, None]}),
    "a page": lambda place: f"<b>{place}/held</b> <img src='data:image/jpeg;base64,/9j/4AAQ/x'>",
    "a table": lambda place: [["rule", f"{place}/held"], ["loss", "1"]],
}


@pytest.mark.parametrize("what", SAID)
def test_a_visitor_learns_no_folder_even_where_it_is_none_of_the_known_ones(tmp_path: Path, what: str) -> None:
    curtain = Curtain(bench_of(origin_run(tmp_path)))
    for shown in (curtain.public(SAID[what](HIDDEN)), curtain.hide(SAID[what](HIDDEN))):
        assert "jane" not in str(shown) and "mnt" not in str(shown), shown
        if what == "a matrix as text":
            assert json.loads(str(shown))["n"] == [1, None]
        if what == "a page":
            assert "base64,/9j/4AAQ/x'" in str(shown), "a picture is no path"


def test_prompts_addresses_and_ids_stay_as_they_are_for_visitors(tmp_path: Path) -> None:
    value = {"prompt": "a /really/odd/ one", "details": [["Prompt", "a /b/ c"], ["x", 1]],
             "hint": "GET /api/v1/list and/or /cmp/cell/a.png", "id": "a/b@5", "end": "<p>1</p></div>",
             "url": "https://example.org/a/b", "kept": '{"seed": 1, "at": "a/b"}'}  # fmt: skip
    assert Curtain(bench_of(origin_run(tmp_path))).public(value) == value


def test_visitors_are_not_told_who_voted(tmp_path: Path) -> None:
    told = {"votes": 3, "voters": [{"voter": "ann", "votes": 3}], "items": [{"voter": "ann", "left": "a"}]}
    assert Curtain(bench_of(origin_run(tmp_path))).public(told) == {"votes": 3, "items": [{"left": "a"}]}
