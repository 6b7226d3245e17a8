"""Converts every checkpoint of a run to a full diffusers pipeline: `python convert_all_checkpoints.py ../outputs/RUN [--force]`.

The same as `python -m cmp convert RUN --to pipeline`, under the name and with the words that people know.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cmp.core.conversion import summarise
from cmp.core.progress import run_through
from cmp.disk.ready import Answers
from cmp.errors import CmpError
from cmp.settings import Settings, prepare_libraries
from cmp.workbench import Workbench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("--force", action="store_true", help="convert again what is converted already")
    parser.add_argument("--base_model", help="the base model: an id or a folder, where the run does not say it")
    asked = parser.parse_args()
    bench = Workbench(Settings.from_env(os.environ))
    folder = Path(asked.run).expanduser().absolute()
    run, _ = bench.find(str(folder))
    print(f"Found {len(run.checkpoints)} checkpoints in {folder}")
    done = {"converted": 0, "skipped": 0, "failed": 0}
    for checkpoint in run.checkpoints:
        done[convert(bench, checkpoint.path, checkpoint.key, Answers(base=asked.base_model), asked.force)] += 1
    print(f"Summary: {summarise(done['converted'], done['skipped'], done['failed'])}")
    return 1 if done["failed"] else 0


def convert(bench: Workbench, path: Path, name: str, given: Answers, force: bool) -> str:
    """Converts one checkpoint and tells what became of it: "converted", "skipped" or "failed"."""
    try:
        plan = bench.plan_conversion(str(path), "pipeline", given, force=force)
        if plan.done:
            print(f"{name}: already converted, use --force to redo ({plan.target})")
            return "skipped"
        print(f"{name}: converting to {plan.target} …", flush=True)
        conversion = run_through(bench.convert(plan))
    except CmpError as fault:
        print(f"{name}: failed: {fault.message} {fault.hint}")
        return "failed"
    print(f"{name}: converted in {conversion.seconds:.1f} s; {'; '.join(conversion.checks)}")
    return "converted"


if __name__ == "__main__":
    prepare_libraries(os.environ)
    try:
        sys.exit(main())
    except CmpError as fault:
        sys.exit(f"{fault.title}: {fault.message}\n  {fault.hint}")
