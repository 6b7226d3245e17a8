"""What a server tells of its health, without loading anything for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.vitals import vitals
from tests.support import DEVICE


def test_asking_for_health_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cmp.settings import Settings; from cmp.workbench import Workbench\n"
        "from cmp.workbench.vitals import vitals\n"
        f"told = vitals(Workbench(Settings(Path({str(tmp_path)!r}), (Path({str(tmp_path)!r}),))))\n"
        "print(told['device'], 'torch' in sys.modules)"
    )
    device, loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert device in ("cpu", "cuda", "mps") and loaded == "False"


def test_health_tells_queue_memory_uptime_version_and_that_it_is_being_stopped(tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home", (tmp_path,), device="cpu"))
    told = vitals(bench)
    assert {"status": "healthy", "device": "cpu", "models_cached": [], "queue": {"waiting": 0, "running": 0}}.items() <= told.items()
    memory: dict[str, int] = told["memory"]  # type: ignore[assignment]
    assert 0 < memory["used_bytes"] < memory["total_bytes"] and (told["gpus"] == [] or DEVICE != "cpu") and told["version"]
    assert vitals(bench)["uptime_seconds"] >= told["uptime_seconds"]  # type: ignore[operator]
    bench.jobs.close(0.0, 0.0)
    assert vitals(bench)["status"] == "stopping"
