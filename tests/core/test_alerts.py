"""What is told of a run that is trained, and above all what is not."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmp.core.alerts import Alert, curve_alerts, fresh, job_alert, state_alerts
from cmp.core.curves import LossCurve
from cmp.core.runs import Checkpoint, Run, Setting
from cmp.core.work import JobRecord
from cmp.disk.logs.curves import read_curves

DATA = Path(__file__).resolve().parents[1] / "data"
RUN = Run("shoes", Path("/runs/shoes"), Path("/runs"), "kohya", settings={"max_train_steps": Setting(3000, "c")})
NOW = 1_795_430_000.0


def curve(values: object, tag: str = "loss", *, every: int = 1, seconds: float | None = None, ago: float = 0.0) -> LossCurve:
    """A curve whose last value was logged `ago` seconds before NOW."""
    found = np.asarray(values, dtype=np.float64)
    steps = np.arange(1, found.size + 1, dtype=np.int64) * every
    times = None if seconds is None else NOW - ago - seconds * np.arange(found.size)[::-1]
    return LossCurve("shoes", tag, steps, found, times, Path("/logs/a"))


def noise(count: int, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """As a training loss scatters: heavy on one side, its spread as large as its level."""
    return level * np.exp(0.9 * np.random.default_rng(seed).standard_normal(count))


def kinds(alerts: tuple[Alert, ...]) -> list[str]:
    return [alert.kind for alert in alerts]


def test_a_loss_that_is_no_number_any_more_is_told_from_which_step_on_and_once() -> None:
    values = np.append(noise(100), [math.nan] * 3)
    (first,) = curve_alerts(RUN, [curve(values)], NOW)
    assert (first.kind, first.about) == ("not-finite", "shoes") and "from step 101 on" in first.what
    (later,) = curve_alerts(RUN, [curve(np.append(values, [math.nan] * 50))], NOW + 99)
    assert later.id == first.id and fresh([later], {first.id}) == ()
    (resumed,) = curve_alerts(RUN, [curve(np.append(noise(80), [math.inf]))], NOW)
    assert resumed.id != first.id, "it broke again after it was resumed"


def test_single_steps_without_a_number_are_told_as_such() -> None:
    values = noise(100)
    values[[10, 40]] = math.nan
    (alert,) = curve_alerts(RUN, [curve(values)], NOW)
    assert "2 of 100 steps, first at 11" in alert.what


def test_an_exploding_loss_is_told_and_keeps_its_id_while_it_goes_on() -> None:
    grown = np.append(noise(400), noise(60, 5.0, 1))
    (alert,) = curve_alerts(RUN, [curve(grown[:440])], NOW)
    assert alert.kind == "exploding" and "explodes" in alert.what
    assert {a.id for a in curve_alerts(RUN, [curve(grown)], NOW)} == {alert.id}


@pytest.mark.parametrize("count", [20, 60, 300, 3000])
def test_noise_outliers_and_a_rising_loss_explode_nothing(count: int) -> None:
    for seed in range(20):
        assert curve_alerts(RUN, [curve(noise(count, seed=seed))], NOW) == ()
    spiky = noise(count)
    spiky[-2:] = 1000.0
    assert curve_alerts(RUN, [curve(spiky), curve(np.linspace(0.1, 0.9, count))], NOW) == ()
    assert curve_alerts(RUN, [curve(np.zeros(count))], NOW) == curve_alerts(RUN, [curve(-noise(count))], NOW) == ()


def test_a_held_out_loss_is_told_once_it_has_risen_by_more_than_its_noise() -> None:
    scatter = 0.01 * np.random.default_rng(0).standard_normal(40)
    values = np.concatenate([np.linspace(1.0, 0.5, 20), np.linspace(0.5, 0.8, 20)]) + scatter
    assert curve_alerts(RUN, [curve(values[:21], "loss/validation", every=100)], NOW) == ()
    (alert,) = curve_alerts(RUN, [curve(values, "loss/validation", every=100)], NOW)
    assert alert.kind == "held-out" and "at step 2," in alert.what and "by more than its noise" in alert.what
    (grown,) = curve_alerts(RUN, [curve(np.append(values, [0.85, 0.9]), "loss/validation", every=100)], NOW)
    assert grown.id == alert.id


def test_a_held_out_loss_that_only_scatters_is_not_told_however_often_it_is_looked_at() -> None:
    values = 1 + 0.01 * np.random.default_rng(3).standard_normal(120)
    for count in range(6, 121, 6):
        assert curve_alerts(RUN, [curve(values[:count], "loss/validation")], NOW) == (), count


def test_no_run_whose_logs_lie_here_alarms_at_any_length(demo_home: Path) -> None:
    """Real logs of healthy trainings, as they were at every tenth of their way."""
    named = os.environ.get("CMP_CORPUS")
    places = [DATA / "logs", DATA / "runs", demo_home, *([Path(named)] if named else [])]
    files = [file for place in places for file in place.rglob("*tfevents*")]
    judged = 0
    for file in files:
        for found in (curve for curve in read_curves("run", [file])[0] if "loss" in curve.tag):
            for count in np.unique(np.linspace(1, found.steps.size, 10).astype(int)).tolist():
                part = replace(found, steps=found.steps[:count], values=found.values[:count], wall_times=None)
                assert curve_alerts(RUN, [part], NOW) == (), f"{file} {found.tag} {count}"
                judged += 1
    assert judged > 20


# -- what is to come -------------------------------------------------------------------------------------------------------


def test_a_run_that_logs_no_more_is_told_where_steps_are_to_come() -> None:
    (alert,) = state_alerts(RUN, [curve(noise(2000), seconds=2.0, ago=700)], None, NOW)
    assert alert.kind == "stopped" and "12 min" in alert.what and "1,000 of 3,000" in alert.what


@pytest.mark.parametrize(
    ("ago", "seconds", "count", "total"),
    [
        (500, 2.0, 2000, 3000),  # a short break
        (1000, 120.0, 2000, 3000),  # it logs every two minutes
        (90000, 2.0, 3000, 3000),  # it is done
        (90000, 2.0, 2000, None),  # nobody knows how long it is to be
        (90000, None, 2000, 3000),  # nor when it was logged
        (-90000, 2.0, 2000, 3000),  # a clock that goes before ours
    ],
)
def test_a_run_that_is_slow_done_or_unknown_has_not_stopped(ago: float, seconds: float | None, count: int, total: int | None) -> None:
    run = replace(RUN, settings={"max_train_steps": Setting(total, "c")} if total else {})
    assert state_alerts(run, [curve(noise(count), seconds=seconds, ago=ago)], None, NOW) == ()


def test_a_run_with_its_final_weights_has_come_to_its_end_whatever_its_settings_say() -> None:
    final = Checkpoint("shoes", "final", Path("/runs/shoes/f"), "kohya", "lora", written_at=NOW - 600)
    logged = [curve(noise(2000), seconds=2.0, ago=700)]
    assert state_alerts(replace(RUN, checkpoints=(final,)), logged, None, NOW) == ()
    assert kinds(state_alerts(replace(RUN, checkpoints=(replace(final, written_at=NOW - 9000),)), logged, None, NOW)) == ["stopped"]


def saved(*steps: int) -> tuple[Checkpoint, ...]:
    return tuple(Checkpoint("shoes", str(s), Path(f"/runs/shoes/{s}"), "kohya", "lora", s, bytes=3_400_000_000) for s in steps)


def test_a_disk_that_will_be_full_before_the_end_is_told_once() -> None:
    run = replace(RUN, checkpoints=saved(500, 1000))
    assert state_alerts(run, (), 14_000_000_000, NOW) == ()
    (alert,) = state_alerts(run, (), 13_000_000_000, NOW)
    assert alert.kind == "disk" and "4 checkpoints to come need 13.6 GB" in alert.what
    (later,) = state_alerts(replace(RUN, checkpoints=saved(500, 1000, 1500)), (), 9_000_000_000, NOW)
    assert later.id == alert.id


def test_where_nobody_knows_how_long_a_run_is_the_next_checkpoint_counts() -> None:
    run = replace(RUN, settings={}, checkpoints=saved(500))
    assert state_alerts(run, (), 3_500_000_000, NOW) == () and state_alerts(replace(run, checkpoints=()), (), 0, NOW) == ()
    assert kinds(state_alerts(run, (), 3_000_000_000, NOW)) == ["disk"]


# -- jobs ------------------------------------------------------------------------------------------------------------------

JOB = JobRecord("grid-7", "grid", "the secret prompt", 6, "done", 6, started=NOW - 300, ended=NOW - 1)


def test_jobs_are_told_when_they_are_done_or_have_failed_without_their_prompts() -> None:
    done = job_alert(JOB, NOW)
    failed = job_alert(replace(JOB, state="failed", done=2, error={"error": "the secret prompt is too long"}), NOW)
    assert done and failed and (done.kind, failed.kind) == ("job-done", "job-failed") and done.id != failed.id
    assert not done.severe and failed.severe and not done.quiet
    assert "secret" not in json.dumps([done.as_json(), failed.as_json()])


def test_what_was_stopped_or_was_there_already_is_no_news_and_what_was_quick_is_quiet() -> None:
    assert job_alert(replace(JOB, state="cancelled"), NOW) is None is job_alert(replace(JOB, state="running", ended=None), NOW)
    assert job_alert(replace(JOB, reused=6), NOW) is None
    quick = job_alert(replace(JOB, started=NOW - 5), NOW)
    assert quick and quick.quiet


def test_an_alert_gives_away_no_path() -> None:
    (alert,) = curve_alerts(replace(RUN, folder=Path("/home/alice/secret")), [curve([math.nan] * 9)], NOW)
    assert "alice" not in json.dumps(alert.as_json())
