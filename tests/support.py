"""Makers of tiny runs: the layouts that trainers leave, with weights of a few kB. No torch, so that a test takes milliseconds."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from safetensors.numpy import save_file

from cmp.core.conversion import Conversion
from cmp.core.grids import Tile
from cmp.core.progress import run_through
from cmp.jobs import Job
from cmp.settings import Settings
from cmp.workbench import Workbench

T = TypeVar("T")
WIDTH = 8
NOW = 1795430000  # Unix seconds
DEVICE = os.environ.get("CMP_TEST_DEVICE", "cpu")  # what the tests of the engine draw with; "auto" takes a card
# by how much a value of a picture, and a part of a loss, may be off where it was computed in another company: in full precision on a
# processor, in half on a card, where models of random weights differ most
GREY, PART = (1, 2e-5) if DEVICE == "cpu" else (90, 0.02)
BASE_NAME = "tiny-sd"
MODULES = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_q",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
)
_PLAIN = {"conv_in.weight": (4, 4, 3, 3), "conv_in.bias": (4,), "time_embedding.linear_1.weight": (WIDTH, 4), "conv_out.bias": (4,)}

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Training:
    """What a maker wrote: the run's folder, the folder to scan, and the folder of base models."""

    run: Path
    outputs: Path
    bases: Path

    @property
    def base(self) -> Path:
        return self.bases / BASE_NAME

    def checkpoint(self, step: int) -> Path:
        return self.run / "checkpoints" / f"checkpoint-{step}"


def base_tensors() -> Tensors:
    """A UNet's state in miniature, under the base model's own names."""
    shapes = {**_PLAIN, **{f"{module}.weight": (WIDTH, WIDTH) for module in MODULES}, f"{MODULES[3]}.bias": (WIDTH,)}
    return {name: _noise(name, shape) for name, shape in shapes.items()}


def adapter_tensors(step: int, rank: int = 8) -> Tensors:
    """The adapter at a step, under the names PEFT gives it within the model: `MODULE.lora_A.weight`."""
    shapes = {"lora_A": (rank, WIDTH), "lora_B": (WIDTH, rank)}
    return {f"{m}.{half}.weight": _noise(f"{m}{half}{step}", shape) for m in MODULES for half, shape in shapes.items()}


def _noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    seed = list(name.encode())
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def wrapped_tensors(step: int, rank: int = 8) -> Tensors:
    """Accelerate's dump of the whole PEFT-wrapped model: base layers, plain layers, and an adapter called "default"."""
    state = {}
    for name, values in base_tensors().items():
        module, _, kind = name.rpartition(".")
        state[f"base_model.model.{module}.base_layer.{kind}" if module in MODULES else f"base_model.model.{name}"] = values
    for name, values in adapter_tensors(step, rank).items():
        state[f"base_model.model.{name.removesuffix('.weight')}.default.weight"] = values
    return state


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Ends what blocks, as opening a FIFO does."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def as_nobody(call: Callable[[], object]) -> Any:
    """What `call` gives as JSON, called by a user for whom permissions count: for root, by a child process of another uid."""
    if os.geteuid() != 0:
        return call()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            answer = json.dumps({"value": call()})
        except BaseException as fault:  # noqa: BLE001  (told to the parent, which raises it)
            answer = json.dumps({"fault": f"{type(fault).__name__}: {fault}"})
        with os.fdopen(writing, "w") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert "fault" not in answer, answer["fault"]
    return answer["value"]


def save(file: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), file, metadata)
    file.chmod(0o644)  # the library leaves 0600, whatever the umask
    return file


def base_pipeline(bases: Path, tensors: Mapping[str, np.ndarray] | None = None) -> Path:
    """A diffusers pipeline folder that holds a UNet and nothing else."""
    folder = bases / BASE_NAME
    save(folder / "unet" / "diffusion_pytorch_model.safetensors", base_tensors() if tensors is None else tensors, {"format": "pt"})
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_config(folder: Path, rank: object = 8, alpha: object = 16, **more: object) -> Path:
    """PEFT's adapter_config.json."""
    targets = sorted({".".join(m.split(".")[-2:]) if m.endswith(".0") else m.rsplit(".", 1)[-1] for m in MODULES})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets, "base_model_name_or_path": None, **more}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder / "adapter_config.json"


def write_log(tracker: Path, losses: Iterable[tuple[int, float]], tag: str = "loss", **settings: object) -> Path:
    """One start of a training as Accelerate's tracker leaves it: an event file, and the settings below it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    writer = RecordWriter(out)
    for step, loss in losses:
        event = Event(wall_time=NOW + step, step=step)
        event.summary.value.add(tag=tag, simple_value=loss)
        writer.write(event.SerializeToString())
    started = tracker / f"{NOW}.7268877"
    started.mkdir(parents=True, exist_ok=True)
    (started / "hparams.yml").write_text(yaml.dump(settings))
    file = tracker / f"events.out.tfevents.{NOW}.vm.7.0"
    file.write_bytes(out.getvalue())
    return file


def origin_run(
    training: Path, steps: Iterable[int] = (500, 1000), rank: int = 8, alpha: int = 16, *,
    name: str = "lora_casual_shoes", logs: bool = True, final: bool = True, base: bool = True,
) -> Training:  # fmt: skip
    """An Accelerate + PEFT run: `outputs/RUN/checkpoints/checkpoint-N` with whole wrapped models, logs beside `outputs/`."""
    made = Training(training / "outputs" / name, training / "outputs", training / "bases")
    steps = tuple(steps)
    for step in steps:
        save(made.checkpoint(step) / "model.safetensors", wrapped_tensors(step, rank), {"format": "pt"})
        for extra in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
            (made.checkpoint(step) / extra).write_bytes(b"never opened")
    if final and steps:
        adapter = {f"base_model.model.{n}": v for n, v in adapter_tensors(max(steps), rank).items()}
        save(made.run / "lora_weights" / "adapter_model.safetensors", adapter, {"format": "pt"})
        write_config(made.run / "lora_weights", rank, alpha)
    if logs:
        losses = [(step, 1.0 / (step + 1)) for step in range(1, 51)]
        told = {"output_dir": f"../outputs/{name}", "lora_rank": rank, "lora_alpha": alpha, "pretrained_model_name_or_path": BASE_NAME}
        write_log(training / "logs" / f"train_{name}", losses, **told, hub_token="hf_" + "x" * 20)
    if base:
        base_pipeline(made.bases)
    return made


def diffusers_run(training: Path, steps: Iterable[int] = (2, 4), rank: int = 4, *, name: str = "sd-lora", final: bool = True) -> Training:
    """A run of diffusers' text-to-image LoRA script: `RUN/checkpoint-N`, the final file in RUN itself under older names, logs inside."""
    made = Training(training / "outputs" / name, training / "outputs", training / "bases")
    steps = tuple(steps)
    for step in steps:
        folder = made.run / f"checkpoint-{step}"
        save(folder / "pytorch_lora_weights.safetensors", {f"unet.{n}": v for n, v in adapter_tensors(step, rank).items()})
        (folder / "optimizer.bin").write_bytes(b"never opened")
    if final and steps:
        older = {"lora_A": "lora.down", "lora_B": "lora.up"}
        last = {f"unet.{n.replace(h, older[h])}": v for n, v in adapter_tensors(max(steps), rank).items() for h in older if h in n}
        save(made.run / "pytorch_lora_weights.safetensors", last)
    told = {"output_dir": f"outputs/{name}", "rank": rank, "pretrained_model_name_or_path": BASE_NAME, "validation_prompt": "a shoe"}
    told |= {"train_batch_size": 1, "max_train_steps": max(steps, default=0), "checkpointing_steps": 2}  # by these its log is known
    write_log(made.run / "logs" / "text2image-fine-tune", [(step, 0.5 / step) for step in range(1, 5)], "train_loss", **told)
    return made


def tiles_of(work: Iterable[object]) -> list[Tile]:
    """What a grid's drawing came to, without the steps between."""
    return [item for item in work if isinstance(item, Tile)]


def in_a_loop_of_its_own(work: Coroutine[Any, Any, T]) -> T:
    """What it comes to; in a thread aside, since a browser's tests in this process may have left a loop running in this one."""
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(asyncio.run, work).result()


def finished(job: Job) -> Job:
    """The same once it is over, or after five minutes an error."""
    waiting = threading.Event()
    for _ in range(300 * 100):
        if job.over:
            return job
        waiting.wait(0.01)
    raise AssertionError(f"{job} is not over")


def bench_of(made: Training, *bases: Path) -> Workbench:
    return Workbench(Settings(made.outputs.parent / "home", (made.outputs,), bases or (made.bases,)))


def convert(made: Training, form: str = "lora", target: str = "lora_casual_shoes@500", **more: Any) -> Conversion:
    bench = bench_of(made)
    return run_through(bench.convert(bench.plan_conversion(target, form, **more)))


def spoil(made: Training, change: Callable[[Tensors], object], step: int = 500) -> None:
    """Writes a checkpoint of `origin_run` anew, after `change` has been at its tensors."""
    tensors = wrapped_tensors(step)
    change(tensors)
    save(made.checkpoint(step) / "model.safetensors", tensors)


def left_in(made: Training) -> list[str]:
    """Everything that is in the run beside the checkpoints and was not put there by the trainer."""
    return sorted(p.relative_to(made.run).as_posix() for p in made.run.rglob("*") if p.is_file() and "checkpoints/" not in p.as_posix())


def unpack(archive: Path, folder: Path) -> None:
    """All that a test's archive holds, links that lead out of it included; Python before 3.11.4 knows no other way."""
    with tarfile.open(archive) as file:
        file.extractall(folder, **({"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}))
