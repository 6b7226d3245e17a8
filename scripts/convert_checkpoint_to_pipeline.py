"""Converts one checkpoint to a full diffusers pipeline, and draws a picture with it if a prompt is given.

python convert_checkpoint_to_pipeline.py --checkpoint RUN/checkpoints/checkpoint-1000 --output RUN/checkpoint_pipelines/checkpoint-1000
                                         [--base_model ID_OR_PATH] [--test_prompt TEXT]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cmp.cli.output import fail
from cmp.core.progress import run_through
from cmp.disk.ready import Answers
from cmp.errors import CmpError
from cmp.settings import Settings, prepare_libraries
from cmp.workbench import Workbench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="the checkpoint's folder, or its id, RUN@STEP")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write the pipeline to")
    parser.add_argument("--base_model", help="the base model: an id or a folder, where the run does not say it")
    parser.add_argument("--test_prompt", help="draw this with the finished pipeline, into OUTPUT/test.png")
    parser.add_argument("--force", action="store_true", help="replace what lies at --output; it goes to .cmp-trash")
    asked = parser.parse_args()
    bench = Workbench(Settings.from_env(os.environ))
    output = asked.output.expanduser().absolute()
    plan = bench.plan_conversion(asked.checkpoint, "pipeline", Answers(base=asked.base_model), output=output, force=asked.force)
    if plan.done:
        print(f"{plan.target}: {plan.done}")
    else:
        conversion = run_through(bench.convert(plan))
        print(f"Converted {plan.checkpoint.path} → {output} in {conversion.seconds:.1f} s")
        for check in conversion.checks:
            print(f"  {check}")
    if asked.test_prompt:
        print(f"Drew {draw(output, asked.test_prompt)}")


def draw(pipeline: Path, prompt: str) -> Path:
    """Draws one picture with diffusers alone, as any user of the converted pipeline would."""
    import torch

    from cmp.engine.loading import load_pipeline
    from cmp.engine.steps import silent

    target = pipeline / "test.png"
    pipe = load_pipeline(pipeline, torch.float32, silent)
    pipe(prompt, num_inference_steps=20, generator=torch.Generator("cpu").manual_seed(0)).images[0].save(target)
    return target


if __name__ == "__main__":
    prepare_libraries(os.environ)
    try:
        main()
    except CmpError as fault:
        fail(fault, as_json=False)
