"""Converts every checkpoint of a run to a full diffusers pipeline: `python convert_all_checkpoints.py ../outputs/RUN [--force]`.

The same as `python -m cmp convert RUN --to pipeline`, under the name and with the words that people know.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cmp.cli.output import fail
from cmp.core.conversion import summarise
from cmp.core.progress import run_through
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ready import Answers
from cmp.errors import CmpError
from cmp.settings import Settings, prepare_libraries
from cmp.workbench import Workbench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run's folder, or its id as `python -m cmp list` shows it")
    parser.add_argument("--force", action="store_true", help="convert again what is converted already")
    parser.add_argument("--base_model", help="the base model: an id or a folder, where the run does not say it")
    asked = parser.parse_args()
    bench = Workbench(Settings.from_env(os.environ))
    run, one = bench.find(asked.run)
    wanted = (one,) if one else run.checkpoints
    print(f"Found {len(wanted)} checkpoint{'' if len(wanted) == 1 else 's'} in {run.folder}")
    done: list[str | CmpError] = [convert(bench, run, checkpoint, Answers(base=asked.base_model), asked.force) for checkpoint in wanted]
    failed = [fault for fault in done if isinstance(fault, CmpError)]
    print(f"Summary: {summarise(done.count('converted'), done.count('skipped'), len(failed))}")
    return 0 if not failed else failed[0].exit_code if len(wanted) == 1 else 1


def convert(bench: Workbench, run: Run, checkpoint: Checkpoint, given: Answers, force: bool) -> str | CmpError:
    """Converts one checkpoint and tells what became of it: "converted", "skipped", or the error that stands against it."""
    name = checkpoint.key
    try:
        plan = bench.plan_checkpoint(run, checkpoint, "pipeline", given, force=force)
        if plan.done:
            print(f"{name}: already converted, use --force to redo ({plan.target})")
            return "skipped"
        print(f"{name}: converting to {plan.target} …", flush=True)
        conversion = run_through(bench.convert(plan))
    except CmpError as fault:
        print(f"{name}: failed: {fault.told}")
        return fault
    print(f"{name}: converted in {conversion.seconds:.1f} s; {'; '.join(conversion.checks)}")
    return "converted"


if __name__ == "__main__":
    prepare_libraries(os.environ)
    try:
        sys.exit(main())
    except CmpError as fault:
        fail(fault, as_json=False)
