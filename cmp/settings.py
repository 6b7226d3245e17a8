"""The settings of this process, read from the environment here and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from cmp.errors import BadInput

MODES = ("local", "token", "space")
LOG_FORMATS = ("text", "json")
BUSY = ("wait", "cpu", "draw")
OURS = "YES"  # as HF_HUB_OFFLINE: the library reads it as 1, and that no user has set it can still be told
READING = ("token", "open")
DRAWING = ("limited", "off")
HUB = "hf://"  # what an address on the Hugging Face Hub begins with
_BETWEEN = re.compile(re.escape(os.pathsep) + r"(?!//)")  # the colon of an address is none
AUTO = "auto"  # said instead of a token: one is made
VARIABLES = {  # what the environment may say, for the reference
    "CMP_RUNS": "Folders that hold training runs, and hf://OWNER/NAME for those on the Hub, separated as in PATH; else the bundled demo.",
    "CMP_BASES": "Folders that hold base models, separated as in PATH; the Hugging Face cache is looked through in any case.",
    "CMP_HOME": "Where pictures, votes, names and answers are kept; the platform's folder for user data otherwise.",
    "CMP_DEVICE": "What draws: auto (CUDA, then MPS, then the processor), or a device as torch names it, such as cuda:1 or cpu.",
    "CMP_BUSY": "What a grid does while another program uses the graphics card: wait, cpu (draw there meanwhile), or draw in spite of it.",
    "CMP_MODE": "How it is served: local, token, or space.",
    "CMP_TOKEN": "What callers must show; see serve --token.",
    "CMP_AT_TOKEN": "The token of the other instance that `grid --at URL` draws on.",
    "CMP_READING": "What looking needs where there is a token: token, or open for nothing; see serve --open-reading.",
    "CMP_DRAWING": "What is drawn where all is read-only: limited, or off, which makes it read-only too; see serve --no-drawing.",
    "CMP_HOSTS": "Further names by which the server is reached, such as a proxy's, separated by commas.",
    "CMP_PORT": "The port of the page and REST; 0 takes any free one.",
    "CMP_LOG_FORMAT": "How a server tells what it does, line by line: text, or json; see serve --log-format.",
    "CMP_LOG_FILE": "Where it tells it; standard error otherwise.",
    "CMP_ALERT_WEBHOOK": "An address to which alerts are posted as JSON; see serve --alert-webhook.",
    "CMP_ALERT_COMMAND": "A command that gets each alert as JSON on its standard input; see serve --alert-command.",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to look, where to keep state, and how to serve.

    `runs` and `hub` (addresses hf://…) empty mean: show the bundled demo. `device` "auto" picks CUDA, then MPS, then the CPU. `busy` says
    what to do while another program uses the graphics card: "wait" for it, draw on the "cpu", or "draw" in spite of it. `read_only`:
    nothing is converted, measured, marked or answered, whoever asks for it, and drawn within limits; without `drawing` not at all.
    `open_reading`: where there is a token, looking needs none. `hosts` are further names by which this server is reached.
    `on_space`: Hugging Face's proxy stands before it and shows it within its own page.
    `alert_webhook` and `alert_command` are told of alerts; only whoever starts the server sets them. `offline`: the user has told the Hub's
    library to stay offline, which uploads and runs on the Hub heed.
    """

    home: Path
    runs: tuple[Path, ...] = ()
    bases: tuple[Path, ...] = ()
    device: str = "auto"
    mode: str = "local"
    token: str | None = None
    port: int = 7860
    busy: str = "wait"
    read_only: bool = False
    drawing: bool = True
    offline: bool = False
    open_reading: bool = False
    hosts: tuple[str, ...] = ()
    log_format: str = "text"
    log_file: Path | None = None
    alert_webhook: str | None = None
    alert_command: str | None = None
    hub: tuple[str, ...] = ()
    at_token: str | None = None
    on_space: bool = False

    @property
    def draws(self) -> bool:
        """Whether a server draws anything for anybody."""
        return self.drawing or not self.read_only

    @property
    def for_strangers(self) -> bool:
        """Whether whoever comes may draw; where everybody looks by a token's leave or not at all, that is its owner's."""
        return self.mode == "space" or (self.read_only and self.open_reading and not self.token)

    @property
    def makes_token(self) -> bool:
        """Whether the token is still to be made: what stands for it lets nobody in."""
        return self.token == AUTO

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Reads VARIABLES; on a Space of Hugging Face the mode is "space" and its own name is among the hosts. Raises BadInput."""
        on_space = environ.get("SYSTEM") == "spaces" or bool(environ.get("SPACE_ID"))
        mode = _one_of(MODES, "CMP_MODE", environ, "space" if on_space else "local")
        reading, drawing = _one_of(READING, "CMP_READING", environ), _one_of(DRAWING, "CMP_DRAWING", environ)
        runs, hub = split_runs(re.split(_BETWEEN, environ.get("CMP_RUNS", "")))
        hosts = [*environ.get("CMP_HOSTS", "").split(","), *(environ.get("SPACE_HOST", "").split(",") if on_space else ())]
        return cls(
            home=_path(environ["CMP_HOME"]) if environ.get("CMP_HOME") else user_data_path("cmp", appauthor=False),
            runs=runs,
            hub=hub,
            on_space=on_space,
            at_token=environ.get("CMP_AT_TOKEN") or None,
            bases=_paths(environ.get("CMP_BASES", "")),
            device=environ.get("CMP_DEVICE") or "auto",
            mode=mode,
            token=environ.get("CMP_TOKEN") or None,
            port=read_port(environ.get("CMP_PORT", "7860"), "CMP_PORT"),
            busy=_one_of(BUSY, "CMP_BUSY", environ),
            offline=environ.get("HF_HUB_OFFLINE", OURS).upper() in ("1", "ON", "TRUE"),
            read_only=mode == "space" or drawing == "off",
            drawing=drawing != "off",
            open_reading=reading == "open" or mode == "space",
            hosts=tuple(host.strip().lower() for host in hosts if host.strip()),
            log_format=_one_of(LOG_FORMATS, "CMP_LOG_FORMAT", environ),
            log_file=_path(environ["CMP_LOG_FILE"]) if environ.get("CMP_LOG_FILE") else None,
            alert_webhook=environ.get("CMP_ALERT_WEBHOOK") or None,
            alert_command=environ.get("CMP_ALERT_COMMAND") or None,
        )


def prepare_libraries(environ: MutableMapping[str, str]) -> None:
    """Settings of other libraries that hold for all of this program; call it before torch is imported. What the user has set stays.

    Waiting threads sleep instead of spin: beside a training on the same cores, two spinning threads made a 36 ms forward pass take
    6 s. The hub is not asked: some loaders look there even for a folder on this disk, and nothing may be downloaded unasked.
    """
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environ.setdefault("GOMP_SPINCOUNT", "0")
    environ.setdefault("HF_HUB_OFFLINE", OURS)
    environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told how Ray is used


def split_runs(texts: Iterable[str]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Folders, and addresses on the Hub; empty texts are none."""
    texts = [text for text in texts if text]
    return tuple(_path(text) for text in texts if not text.startswith(HUB)), tuple(text for text in texts if text.startswith(HUB))


def _one_of(choices: tuple[str, ...], name: str, environ: Mapping[str, str], usual: str | None = None) -> str:
    """What a variable says, the first choice where it says nothing and nothing else is usual."""
    said = environ.get(name) or usual or choices[0]
    if said not in choices:
        raise BadInput(f"{name} is {said!r}", f"Use one of: {', '.join(choices)}.")
    return said


def _path(text: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(text)))  # Path.expanduser raises for the home of nobody


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(_path(part) for part in text.split(os.pathsep) if part)


def read_port(text: str, name: str) -> int:
    """The port that the setting of that name tells; raises BadInput."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535):
        raise BadInput(f"{name} is {text[:40]!r}", "Use a port number from 1 to 65535, or 0 for any free one.")
    return int(text)
