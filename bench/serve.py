"""How a server holds out: 200 lists of models a second, 50 pages at once, more pictures than fit in the queue, and time.

`python bench/serve.py [SECONDS]`: how long the last of these goes on, 600 if nothing is said.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import ROOT, Figure, write
from scan import RUNS, STEPS, make_tree

A_SECOND, FOR, LINES = 200, 10, 64  # requests, seconds, connections
VIEWERS, WAITING, MANY = 50, 8, 40
PAGES = 310  # a few more than a server remembers
SOAK = 600.0
GENERATE = {"model_name": "base", "prompt": "a red casual shoe", "num_inference_steps": 2, "num_images": 1}
Answer = tuple[int, bytes]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SOAK
    figures = []
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        tree = Path(folder) / "training" / "outputs"
        make_tree(tree)
        with serving(Path(folder) / "many", "--runs", str(tree)) as (server, process):
            figures += asyncio.run(many_lists(server, process))
        with serving(Path(folder) / "demo") as (server, process):
            figures += asyncio.run(many_pages(server))
            figures += asyncio.run(many_pictures(server))
            figures += asyncio.run(soak(server, process, seconds))
    write("Serving", figures)


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[tuple[tuple[str, int], int]]:
    """A server of its own; gives its address and the number of its process."""
    command = [sys.executable, "-m", "cmp", *arguments, "serve", "--port", "0"]
    around = os.environ | {"CMP_HOME": str(home), "CMP_DEVICE": "cpu", "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, cwd=ROOT, env=around, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        found = next(filter(None, (re.search(r"Open http://([\d.]+):(\d+)", line) for line in server.stdout)))
        address = found[1], int(found[2])
        asyncio.run(until_up(address))
        yield address, server.pid
    finally:
        server.terminate()
        server.wait(60)


async def until_up(server: tuple[str, int]) -> None:
    for _ in range(300):
        try:
            if (await ask(server, "GET", "/health"))[0] == 200:
                return
        except OSError:
            await asyncio.sleep(0.2)
    raise RuntimeError("the server does not answer")


async def until_quiet(process: int) -> None:
    """Waits until every header is read and every weight compared that might be the same as another: then the process does nothing."""
    for _ in range(900):
        before = working(process)
        await asyncio.sleep(2)
        if working(process) - before < 0.1:
            return
    raise RuntimeError("the server is never done with reading")


def working(process: int) -> float:
    """Seconds of processor time that a process has taken."""
    told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


# -- a client that costs little --------------------------------------------------------------------------------------------


class Line:
    """One connection, kept open."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, value: object = None, accept: str = "gzip") -> Answer:
        """Status and body as they were sent, packed or not."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._server, limit=2**20)
        reader, writer = self._streams
        body = b"" if value is None else json.dumps(value).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._server[0]}:{self._server[1]}\r\nAccept-Encoding: {accept}\r\n{kind}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(told.split(" ", 2)[1])
        if found := re.search(r"content-length: (\d+)", told):
            return status, await reader.readexactly(int(found[1]))
        parts = []
        while size := int((await reader.readline()).strip() or b"0", 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return status, b"".join(parts)

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def ask(server: tuple[str, int], method: str, path: str, value: object = None, accept: str = "gzip") -> Answer:
    line = Line(server)
    try:
        return await line.ask(method, path, value, accept)
    finally:
        line.close()


# -- the figures -----------------------------------------------------------------------------------------------------------


async def many_lists(server: tuple[str, int], process: int) -> list[Figure]:
    """Requests are sent when they are due, whether earlier ones were answered or not, and timed from then."""
    await ask(server, "GET", "/api/models")
    await until_quiet(process)
    _, body = await ask(server, "GET", "/api/models")
    free: asyncio.Queue[Line] = asyncio.Queue()
    for _ in range(LINES):
        free.put_nowait(Line(server))
    times: list[float] = []
    failed = 0

    async def one(due: float) -> None:
        nonlocal failed
        line = await free.get()
        try:
            status, _ = await line.ask("GET", "/api/models")
            times.append(time.perf_counter() - due)
            failed += status != 200
        except (OSError, asyncio.IncompleteReadError):
            failed += 1
            line.close()
        finally:
            free.put_nowait(line)

    began = time.perf_counter() + 0.1
    tasks = []
    for number in range(A_SECOND * FOR):
        due = began + number / A_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    taken = time.perf_counter() - began
    await _close(free)
    ordered = sorted(times)
    what = f"/api/models of {RUNS:,} runs × {STEPS} checkpoints, {A_SECOND} a second for {FOR} s"
    told = f"median {statistics.median(ordered) * 1000:.0f} ms, {len(body) / 1000:.0f} kB packed, all in {taken:.1f} s"
    return [
        Figure(f"{what}: 99 of 100 within", ordered[int(len(ordered) * 0.99)] * 1000, 100, "ms", told),
        Figure(f"{what}: not answered", failed, 0, "requests"),
    ]


async def _close(free: asyncio.Queue[Line]) -> None:
    while not free.empty():
        free.get_nowait().close()


async def events_of(server: tuple[str, int]) -> tuple[dict[int, object], list[dict[str, Any]], list[dict[str, Any]]]:
    """The page's fields as they are at first, what it asks for when it is loaded, and its looks for news."""
    config = json.loads((await ask(server, "GET", "/config", accept="identity"))[1])
    values = {told["id"]: told["props"].get("value") for told in config["components"]}
    events = [told for told in config["dependencies"] if told["backend_fn"]]
    loads = [told for told in events if any(name == "load" for _, name in told["targets"])]
    return values, loads, [told for told in events if any(name == "tick" for _, name in told["targets"]) and not told["queue"]]


async def many_pages(server: tuple[str, int]) -> list[Figure]:
    """Each viewer loads the page and what it asks for at once, and then three of its looks for news."""
    values, loads, ticks = await events_of(server)
    times: list[float] = []
    failed = 0

    async def look(line: Line, number: int) -> list[bool]:
        """Whether each of its requests was answered as it should be."""
        good = [(await line.ask("GET", path))[0] == 200 for path in ("/", "/config", "/api/models", "/cmp/static/matrix.js")]
        for told in [*loads, *ticks[:1] * 3]:
            given = [values[component] for component in told["inputs"]]
            value = {"data": given, "fn_index": told["id"], "session_hash": f"viewer{number}"}
            if told["queue"]:
                good.append((await line.ask("POST", "/gradio_api/queue/join", value))[0] == 200)
                status, said = await line.ask("GET", f"/gradio_api/queue/data?session_hash=viewer{number}", accept="identity")
                good.append(status == 200 and b'"success":true' in said.replace(b" ", b""))
            else:
                good.append((await line.ask("POST", "/gradio_api/run/predict", value))[0] == 200)
        return good

    async def view(number: int) -> None:
        nonlocal failed
        line, began = Line(server), time.perf_counter()
        try:
            good = await look(line, number)
            failed += good.count(False)
            times.append(time.perf_counter() - began)
        except (OSError, asyncio.IncompleteReadError):
            failed += 1
        finally:
            line.close()

    await asyncio.gather(*(view(number) for number in range(VIEWERS)))
    told = f"median {statistics.median(times):.1f} s, slowest {max(times):.1f} s" if times else "–"
    return [Figure(f"{VIEWERS} viewers load the page at once and look three times: requests that failed", failed, 0, "requests", told)]


async def many_pictures(server: tuple[str, int]) -> list[Figure]:
    """As many requests for pictures as may wait, and then many more."""

    async def send(count: int, seed: int) -> list[int]:
        asked = (ask(server, "POST", "/api/generate", GENERATE | {"seed": seed + n}) for n in range(count))
        return [status for status, _ in await asyncio.gather(*asked)]

    first, more = await send(WAITING, 1000), await send(MANY, 2000)
    told = f"{more.count(200)} drawn, {more.count(503)} told that it is too much, {more.count(429)} that it is too often"
    return [
        Figure(f"{WAITING} requests for pictures at once: lost", WAITING - first.count(200), 0, "requests"),
        Figure(f"{MANY} at once: neither drawn nor told to come back", sum(s not in (200, 429, 503) for s in more), 0, "requests", told),
        Figure(f"{MANY} at once: drawn fewer than may wait", max(0, WAITING - more.count(200)), 0, "requests"),
    ]


async def soak(server: tuple[str, int], process: int, seconds: float) -> list[Figure]:
    """All of it slowly for a long time, and what the process has in memory. Before that as many pages are opened as it remembers."""
    values, _, ticks = await events_of(server)

    async def open_page(line: Line, number: int) -> Answer:
        event = {"data": [values[one] for one in ticks[0]["inputs"]], "fn_index": ticks[0]["id"], "session_hash": f"soak{number}"}
        return await line.ask("POST", "/gradio_api/run/predict", event)

    first = Line(server)
    for number in range(PAGES):
        await open_page(first, -number)
    first.close()
    until = time.monotonic() + seconds
    memory: list[float] = []
    counts = {"asked": 0, "failed": 0}

    async def again(every: float, work: Callable[[Line, int], Coroutine[Any, Any, Answer]]) -> None:
        number, line = 0, Line(server)
        while time.monotonic() < until:
            number += 1
            counts["asked"] += 1
            status, _ = await work(line, number)
            counts["failed"] += status not in (200, 429, 503)
            await asyncio.sleep(every)
        line.close()

    async def watch() -> None:
        while time.monotonic() < until:
            memory.append(resident(process))
            await asyncio.sleep(min(1.0, seconds / 100))

    await asyncio.gather(
        watch(),
        again(0.2, open_page),
        again(0.05, lambda line, _: line.ask("GET", "/api/models")),
        again(0.5, lambda line, _: line.ask("GET", "/")),
        again(0.5, lambda line, _: line.ask("GET", "/config")),
        again(1.0, lambda line, _: line.ask("GET", "/api/v1/list")),
        again(1.0, lambda line, _: line.ask("GET", "/api/v1/jobs")),
        again(2.0, lambda line, number: line.ask("POST", "/api/generate", GENERATE | {"seed": 10_000 + number})),
    )
    fifth = len(memory) // 5
    early, late = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
    told = f"{early:.0f} MB, then {late:.0f} MB; {counts['asked']:,} requests"
    return [
        Figure(f"{seconds:.0f} s of everything: memory grows from the second fifth to the last by", max(0.0, late - early), 20, "MB", told),
        Figure(f"{seconds:.0f} s of everything: requests that failed", counts["failed"], 0, "requests"),
    ]


def resident(process: int) -> float:
    """What a process has in memory, in MB."""
    told = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", told)
    return int(found[1]) / 1000 if found else 0.0


if __name__ == "__main__":
    main()
