"""Damaged and hostile folders: each is told for what it is, nothing in it is executed, and nothing is written where nobody asked."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import Said, command
from tests.support import at_most, unpack

DATA = Path(__file__).parents[1] / "data"
BASES = DATA / "corpus" / "bases"
LONGEST = 30  # seconds for a command; a FIFO that is opened blocks for ever

# case, checkpoint, exit code, what the answer to `convert` must say, and what was given with it
REFUSED = (
    ("alpha_unknown", "2", 5, ("alpha", "--alpha"), ()),
    ("being_written", "2", 4, ("incomplete",), ()),
    ("cfg_alpha_string", "2", 5, ("adapter_config.json", "8; import os"), ()),
    ("cfg_not_json", "2", 5, ("adapter_config.json", "in line 1"), ()),
    ("cfg_wrong_peft_type", "2", 5, ("adapter_config.json", "PROMPT_TUNING"), ()),
    ("cfg_zero_rank", "2", 5, ("adapter_config.json", "rank"), ()),
    ("links_escape", "10", 4, ("link",), ()),
    ("pickle_payload", "2", (4, 5), (), ()),
    ("shard_index_traversal", "2", (4, 5), ("model.safetensors.index.json",), ()),
    ("shard_missing", "2", 4, ("incomplete", "model-00002-of-00004.safetensors"), ()),
    ("special_files", "2", 4, ("not a regular file",), ()),
    ("special_files", "3", 4, ("is a folder",), ()),
    ("st_header_length_95MB", "2", 4, ("95,000,008",), ()),
    ("st_header_length_bomb", "2", 4, ("not a safetensors file",), ()),
    ("st_header_not_json", "2", 4, ("not JSON",), ()),
    ("st_metadata_hostile", "2", 5, ("lora_adapter_metadata", "not JSON"), ()),
    ("st_offsets_past_end", "2", 4, ("pytorch_lora_weights.safetensors",), ()),
    ("st_seven_bytes", "2", 4, ("not a safetensors file",), ()),
    ("st_truncated_body", "2", 4, ("incomplete",), ()),
    ("st_truncated_header", "2", 4, ("incomplete",), ()),
    ("st_zero_byte", "2", 4, ("empty",), ()),
    ("weights_config_rank_differs", "2", 5, ("alpha",), ()),
    ("weights_other_arch_sdxl", "2", 5, ("SDXL",), ("--alpha", "4")),
    ("weights_other_base_width", "2", 5, ("attn1.to_k", "[4, 4]"), ("--alpha", "4")),
    ("weights_rank_mismatch", "2", 5, ("rank 4", "rank 8"), ("--alpha", "4")),
    ("weights_textual_inversion_as_unet", "2", 5, (), ()),
    ("weights_unknown_keys", "2", 5, ("down_blocks.9",), ("--alpha", "4")),
)


@dataclass(frozen=True, slots=True)
class Bad:
    """One unpacked case, and commands over it."""

    folder: Path
    home: Path

    def say(self, *arguments: str) -> Said:
        with at_most(LONGEST):
            said = command(self.home, "--runs", str(self.folder / "outputs"), "--bases", str(BASES), *arguments)
        assert not said.crashed, said.told
        return said

    def convert(self, key: str, form: str, *more: str) -> Said:
        return self.say(
            "convert", f"run1@{key}", "--to", form, "--output", str(self.home / "made" / form), "--base", "sd_nano", *more, "--json"
        )

    @property
    def run(self) -> dict[str, Any]:
        (run,) = self.say("list", "--json").json["runs"]
        return run

    def checkpoint(self, key: str) -> dict[str, Any]:
        return next(row for row in self.run["checkpoints"] if row["id"] == f"run1@{key}")

    def curves(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Curves by tag, and the notes."""
        told = self.say("curves", "run1", "--json").json
        return {curve["tag"]: curve for curve in told["curves"]}, told["notes"]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases; the links that lead out of them lead out of them here too."""
    named = os.environ.get("CMP_CORPUS_BAD")
    if not named:
        warnings.warn("CMP_CORPUS_BAD is not set, so that only the small damaged cases are judged", stacklevel=2)
    archive = Path(named).resolve() / "corpus_bad.tar.xz" if named else DATA / "corpus_bad" / "small.tar.xz"
    place = tmp_path_factory.mktemp("corpus_bad")
    unpack(archive, place)  # it holds FIFOs and links on purpose
    for link in [path for path in place.rglob("*") if path.is_symlink()]:
        where = os.readlink(link)
        if where.startswith("/tmp/corpus_bad/"):
            link.unlink()
            link.symlink_to(place / where.removeprefix("/tmp/corpus_bad/"))
    return place


@pytest.fixture
def bad(unpacked: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bad]:
    """The case that a test is marked with; whatever the test did, nothing was executed and the case is as it was."""
    name = request.param
    if not (unpacked / name).is_dir():
        pytest.skip(f"{name} is in the large archive only, which CMP_CORPUS_BAD names")
    before = _state(unpacked / name)
    yield Bad(unpacked / name, tmp_path)
    assert _state(unpacked / name) == before, "something was written into the folder"
    left = [path for folder in {"/tmp", tempfile.gettempdir()} for path in Path(folder).glob("corpus_bad_PWNED*")]
    assert not left, f"something was executed: {left}"


def _state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every file with its size and time of writing, links not followed. A folder's own time would tell of a file that came and went."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        seen = path.lstat()
        found[str(path)] = (seen.st_mode, seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return found


def case(name: str) -> Any:
    return pytest.mark.parametrize("bad", [name], indirect=True)


@pytest.mark.parametrize(("bad", "key", "code", "words", "given"), REFUSED, indirect=["bad"])
@pytest.mark.parametrize("form", ["lora", "pipeline"])
def test_what_cannot_be_converted_rightly_is_refused_and_says_why(
    bad: Bad, key: str, code: int | tuple[int, ...], words: tuple[str, ...], given: tuple[str, ...], form: str
) -> None:
    said = bad.convert(key, form, *given)
    assert said.code in (code if isinstance(code, tuple) else (code,)), said.told
    assert all(word in f"{said.json['error']} {said.json['hint']}" for word in words), f"not all of {words}: {said.told}"
    assert not (bad.home / "made").exists() or not any((bad.home / "made").iterdir()), "something was left behind"


@pytest.mark.parametrize(
    ("bad", "flaw"),
    [
        ("being_written", "incomplete"),
        ("shard_missing", "incomplete"),
        ("st_header_length_95MB", "95,000,008"),
        ("st_header_length_bomb", "not a safetensors file"),
        ("st_header_not_json", "not JSON"),
        ("st_offsets_past_end", "pytorch_lora_weights.safetensors"),
        ("st_seven_bytes", "not a safetensors file"),
        ("st_truncated_body", "incomplete"),
        ("st_truncated_header", "incomplete"),
        ("st_zero_byte", "empty"),
        ("weights_rank_mismatch", "rank"),
    ],
    indirect=["bad"],
)
def test_a_damaged_checkpoint_is_listed_at_its_step_with_its_flaw(bad: Bad, flaw: str) -> None:
    row = bad.checkpoint("2")
    assert row["step"] == 2 and flaw in str(row["flaw"])


@case("special_files")
def test_no_fifo_is_opened_and_no_folder_is_taken_for_a_file(bad: Bad) -> None:
    assert "not a regular file" in bad.checkpoint("2")["flaw"] and "folder" in bad.checkpoint("3")["flaw"]
    assert bad.curves()[0] == {}, "logs/ holds a FIFO named like an event file"
    assert bad.say("show", "run1@2").code == 0 and bad.say("doctor", str(bad.folder)).code == 0


@case("names_checkpoint")
def test_only_ascii_digits_are_a_step_and_two_folders_of_one_step_are_both_kept(bad: Bad) -> None:
    rows = bad.run["checkpoints"]
    steps = {name: row["step"] for row in rows for name in (row["id"], *row["aliases"])}
    assert {name: step for name, step in steps.items() if step in (2, 7)} == {"run1@2": 2, "run1@7": 7, "run1@7~checkpoint-7": 7}
    assert set(steps.values()) <= {2, 7, 10, None}, "10 is SimpleTuner's checkpoint-10-rolling"
    for name, step in steps.items():
        shown = bad.say("show", name, "--json")
        assert shown.code == 0 and shown.json["step"] == step


@case("pickle_payload")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_that_wants_to_run_code_is_refused_in_these_words(bad: Bad, name: str) -> None:
    assert bad.checkpoint("2")["flaw"], "it also holds a part of an FSDP checkpoint"
    source = bad.folder / "outputs" / "run1" / "checkpoints" / "checkpoint-2" / name
    alone = bad.home / "outputs" / "run1" / "checkpoints" / "checkpoint-2" / "pytorch_model.bin"
    alone.parent.mkdir(parents=True)
    shutil.copyfile(source, alone)
    said = command(bad.home, "--runs", str(bad.home / "outputs"), "convert", "run1@2", "--to", "lora", "--alpha", "8", "--json")
    assert not said.crashed and said.code in (4, 5) and "code" in said.json["error"], said.told


@case("links_escape")
def test_links_that_lead_out_are_neither_read_nor_written_through(bad: Bad) -> None:
    told = bad.say("list", "--json").out + bad.say("show", "run1@10").out + bad.say("show", "run1@2").out
    assert "outside" not in told and "root:" not in told
    assert {row["step"] for row in bad.run["checkpoints"]} == {2, 10}
    said = bad.say("convert", "run1@2", "--to", "pipeline", "--base", "sd_nano", "--json")  # checkpoint_pipelines/ is a link
    assert said.code == 5 and "link" in said.json["error"]


@case("pipeline_custom_code")
@pytest.mark.parametrize("order", [("grid", "RUN@2", "--prompt", "x", "--steps", "1"), ("convert", "RUN@2", "--to", "pipeline")])
def test_a_pipeline_that_brings_code_of_its_own_is_no_base(bad: Bad, order: tuple[str, ...]) -> None:
    assert bad.say("list", "--json").code == 0 and bad.say("doctor", str(bad.folder)).code == 0
    pipeline = bad.home / "tempting"
    shutil.copytree(BASES / "sd_nano", pipeline)  # with all of its weights, so that nothing but the code stands against it
    shutil.copytree(bad.folder / "outputs" / "run1" / "pipeline", pipeline, dirs_exist_ok=True)
    runs = ("--runs", str(DATA / "corpus" / "acc_peft_bf16" / "outputs"))
    output = () if order[0] == "grid" else ("--output", str(bad.home / "made"))
    said = command(bad.home, *runs, *order, "--base", str(pipeline), *output)
    assert not said.crashed and said.code == 5 and "evil" in said.err and not (bad.home / "made").exists(), said.told


@case("yaml_payload")
def test_yaml_builds_no_objects_and_a_token_is_never_shown(bad: Bad) -> None:
    said = [bad.say("list", "--json"), bad.say("show", "run1"), bad.say("show", "run1", "--json"), bad.say("curves", "run1", "--json")]
    assert all(answer.code == 0 for answer in said) and not any("SECRET" in answer.out + answer.err for answer in said)


@case("st_metadata_hostile")
def test_metadata_can_neither_steer_the_terminal_nor_flood_it(bad: Bad) -> None:
    for arguments in (("list",), ("list", "--json"), ("show", "run1@2"), ("show", "run1@2", "--json")):
        said = bad.say(*arguments)
        assert said.code == 0 and "\x1b" not in said.out + said.err and len(said.out) < 20_000
    assert bad.convert("2", "lora", "--alpha", "4").code in (0, 5)


@case("cfg_remote_base")
def test_a_base_that_lies_in_the_net_is_shown_and_a_local_one_is_asked_for(bad: Bad) -> None:
    assert bad.run["base_model"] == "https://evil.example/model"
    said = bad.say("convert", "run1@2", "--to", "pipeline", "--output", str(bad.home / "made"), "--json")
    assert said.code == 3 and "--base" in said.json["hint"]


@case("weights_lora_b_zero")
@pytest.mark.parametrize("form", ["lora", "pipeline"])
def test_a_checkpoint_of_step_zero_is_converted_and_said_to_be_the_base(bad: Bad, form: str) -> None:
    said = bad.convert("0", form, "--alpha", "4")
    assert said.code == 0 and any("identical to the base model" in check for check in said.json["converted"][0]["checks"]), said.told


@case("weights_textual_inversion_as_unet")
def test_a_text_encoder_is_known_by_its_tensors_whatever_its_file_is_called(bad: Bad) -> None:
    assert bad.say("show", "run1@2", "--json").json["component"] == "text_encoder"


@case("tf_truncated")
def test_a_log_cut_in_its_last_record_shows_every_whole_point(bad: Bad) -> None:
    curves, _ = bad.curves()
    assert curves["train_loss"]["steps"] == list(range(1, 50))


@case("tf_nan_inf")
def test_losses_that_are_not_finite_are_counted_and_do_not_spread(bad: Bad) -> None:
    said = bad.say("curves", "run1", "--json", "--smooth", "0.9")
    assert "NaN" not in said.out and "Infinity" not in said.out
    (curve,) = said.json["curves"]
    assert [(point["step"], point["kind"]) for point in curve["non_finite"]] == [(17, "nan"), (18, "inf"), (19, "-inf")]
    assert [step for step, value in zip(curve["steps"], curve["values"], strict=True) if value is None] == [17, 18, 19]
    assert any("3 of 50 points are not finite, first at step 17" in note for note in said.json["notes"])


@case("tf_restarted")
def test_a_run_that_was_started_again_has_one_value_for_each_step(bad: Bad) -> None:
    curves, notes = bad.curves()
    assert curves["train_loss"]["steps"] == list(range(1, 51)) and len(notes) == 2
    assert bad.run["last_loss"] == curves["train_loss"]["values"][-1]


@case("tf_duplicate_steps")
def test_of_two_values_for_one_step_the_last_holds_and_it_is_said(bad: Bad) -> None:
    curves, notes = bad.curves()
    assert curves["train_loss"]["steps"] == list(range(1, 21)) and any("20 of 40" in note for note in notes)


@case("tf_out_of_order")
def test_steps_are_sorted(bad: Bad) -> None:
    assert bad.curves()[0]["train_loss"]["steps"] == list(range(1, 51))


@case("tf_empty")
def test_an_empty_log_is_no_error(bad: Bad) -> None:
    assert all(bad.say("curves", run["id"], "--json").json["curves"] == [] for run in bad.say("list", "--json").json["runs"])
    assert any("no scalars yet" in note for note in bad.curves()[1])


@case("tf_no_loss")
def test_no_loss_is_invented(bad: Bad) -> None:
    assert list(bad.curves()[0]) == ["lr"] and bad.run["last_loss"] is None


@case("tf_epoch_axis")
def test_an_average_over_epochs_is_not_taken_for_the_loss_at_a_step(bad: Bad) -> None:
    curves, _ = bad.curves()
    assert curves["loss/epoch_average"]["steps"] == [1, 2, 3, 4] and len(curves["loss/current"]["steps"]) == 40
    assert bad.run["last_loss"] == curves["loss/current"]["values"][-1]


@case("tf_tensor_scalars")
def test_a_loss_written_as_a_tensor_is_read(bad: Bad) -> None:
    assert bad.curves()[0]["train_loss"]["values"][:2] == [1.0, 0.5]


def test_every_case_of_the_archive_is_judged(unpacked: Path) -> None:
    marks = [mark for test in list(globals().values()) for mark in getattr(test, "pytestmark", ()) if mark.args[0] == "bad"]
    assert {folder.name for folder in unpacked.iterdir()} <= {name for name, *_ in REFUSED} | {mark.args[1][0] for mark in marks}
