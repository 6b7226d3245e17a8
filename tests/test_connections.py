"""How many connections a server keeps, and how long it waits for what they want: with the web server's own protocol, over sockets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from cmp import connections
from cmp.connections import Connections, bounded, is_spared, room_for
from tests.support import in_a_loop_of_its_own

HALF = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Talk = Callable[[Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]], Awaitable[None]]


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def served(kept: Connections, talk: Talk) -> None:
    """Serves what answers `ok`, as gradio has it served, and talks to it; all is over within the minute or has failed."""

    async def run() -> None:
        config, state = Config(answer, log_level="critical"), ServerState()
        config.load()
        made = bounded(AutoHTTPProtocol, kept)
        server = await asyncio.get_running_loop().create_server(lambda: made(config, state, {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            await asyncio.wait_for(talk(lambda: asyncio.open_connection("127.0.0.1", port)), 60)
        finally:
            server.close()
            for line in list(state.connections):
                line.transport.abort()

    in_a_loop_of_its_own(run())


async def is_answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    with suppress(ConnectionError):
        writer.write(WHOLE)
        return (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200") and await reader.readexactly(2) == b"ok"
    return False


async def ended(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        return await reader.read() == b""
    return True


def test_who_does_not_say_what_is_wanted_is_cut_off_and_a_drop_now_and_then_gives_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_WITHIN", 0.2)

    async def talk(connect: Any) -> None:
        silent, _ = await connect()
        dripping, drops = await connect()
        half, begun = await connect()
        begun.write(HALF)

        async def drip() -> None:
            with suppress(ConnectionError):
                for one in HALF * 1000:
                    drops.write(bytes([one]))
                    await drops.drain()
                    await asyncio.sleep(0.02)

        dripped = asyncio.create_task(drip())
        assert await ended(silent) and await ended(half) and await ended(dripping)
        dripped.cancel()
        assert await is_answered(*await connect())

    served(Connections(100), talk)


def test_a_second_request_on_a_line_has_as_little_time_and_one_that_is_answered_has_all_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_WITHIN", 0.2)
    kept = Connections(100)

    async def talk(connect: Any) -> None:
        reader, writer = await connect()
        assert await is_answered(reader, writer) and await is_answered(reader, writer)
        assert not kept._silent, "an answered line is not waited for here: the web server ends it when it is idle"
        writer.write(HALF)
        assert await ended(reader)

    served(kept, talk)


def test_one_address_has_no_more_than_its_share_and_those_that_are_spared_have() -> None:
    async def talk(connect: Any) -> None:
        lines = [await connect() for _ in range(3)]
        assert await is_answered(*lines[0]) and await is_answered(*lines[1]) and await ended(lines[2][0])
        lines[0][1].close()
        await lines[0][1].wait_closed()
        while not await is_answered(*await connect()):  # once the server has seen that there is room again
            pass

    async def talk_much(connect: Any) -> None:
        lines = [await connect() for _ in range(3)]
        assert all([await is_answered(*line) for line in lines])

    served(Connections(100, most_of_one=2), talk)
    served(Connections(100, most_of_one=2, spared=lambda address: is_spared(address, "")), talk_much)


def test_where_there_is_no_room_the_longest_silent_makes_some_and_who_asks_is_answered() -> None:
    kept = Connections(3)

    async def talk(connect: Any) -> None:
        idle = [await connect() for _ in range(8)]
        for _, writer in idle:
            with suppress(ConnectionError):
                writer.write(HALF)
        assert await is_answered(*await connect())
        assert all([await ended(reader) for reader, _ in idle[:5]])
        assert len(kept._clients) <= 3

    served(kept, talk)


def test_loopback_and_named_proxies_are_spared_and_nobody_else() -> None:
    assert all(is_spared(address, "") for address in ("127.0.0.1", "127.8.8.8", "::1", ""))
    assert is_spared("10.0.0.7", "127.0.0.1, 10.0.0.7") and is_spared("10.0.0.7", ["10.0.0.0/8"]) and is_spared("8.8.8.8", "*")
    assert not is_spared("10.0.0.8", "127.0.0.1,10.0.0.7,nonsense") and not is_spared("2001:db8::1", "::1")


def test_the_limit_of_open_files_is_raised_to_what_the_system_allows() -> None:
    resource = pytest.importorskip("resource")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 600:
        pytest.skip(f"NOT CHECKED: only {hard} files may be open here")
    code = (
        "import resource; from cmp.connections import raise_open_files, room_for\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 600)); files = raise_open_files()\n"
        "print(files, resource.getrlimit(resource.RLIMIT_NOFILE)[0], room_for(files))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert told == ["600", "600", "300"] and room_for(65_536) == 65_024
