"""A hub of one folder in a child process: as much of the API as is used, and a record of it. `python tests/hub.py FOLDER LOG`."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = COMMIT[::-1]  # where it stands once there is a file "later" beside the folder
PAGE = 5  # files a page


def listed(folder: Path) -> list[dict[str, object]]:
    items: list[dict[str, object]] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            items.append({"type": "directory", "path": name, "oid": "0" * 40})
            continue
        large = path.suffix == ".safetensors"
        lfs = {"oid": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        items.append({"type": "file", "path": name, "size": len(content), "oid": blob} | ({"lfs": lfs} if large else {}))
    return items


class Answering(BaseHTTPRequestHandler):
    folder: Path
    log: Path
    mode = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, asked = unquote(url.path), self.headers.get("Range")
        with self.log.open("a") as log:
            log.write(json.dumps([path, asked, self.headers.get("Authorization")]) + "\n")
        if path == "/api/models/ann/runs/revision/main":
            self.send({"sha": LATER if (self.folder.parent / "later").exists() else COMMIT})
        elif path in (*(f"/api/models/ann/runs/tree/{commit}" for commit in (COMMIT, LATER)), "/api/buckets/ann/runs/tree"):
            items = listed(self.folder)
            if (self.folder.parent / "evil").exists():
                items.append({"type": "file", "path": "../../evil.csv", "size": 3})
            first = int(found[1]) if (found := re.search(r"cursor=(\d+)", url.query)) else 0
            more = f"http://{self.headers['Host']}{url.path}?recursive=true&cursor={first + PAGE}"
            self.send(items[first : first + PAGE], {"Link": f'<{more}>; rel="next"'} if first + PAGE < len(items) else {})
        elif (found := re.match(rf"(?:/ann/runs/resolve/(?:{COMMIT}|{LATER})|/buckets/ann/runs/resolve)/(.+)", path)) and asked:
            host, port = self.headers["Host"].split(":")  # the bytes lie under another name, as the hub's do
            self.send(None, {"Location": f"http://{'localhost' if host != 'localhost' else '127.0.0.1'}:{port}/bytes/{found[1]}"}, 302)
        elif path.startswith("/bytes/") and asked and (self.folder / path[7:]).is_file():
            start, end = map(int, asked.removeprefix("bytes=").split("-"))
            whole = (self.folder / path[7:]).read_bytes()
            if (self.folder.parent / "without-ranges").exists():
                self.send(whole, {}, 200)
            else:
                self.send(whole[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(whole)}"}, 206)
        else:
            self.send({"error": "not found"}, {}, 404)

    def send(self, body: object, headers: dict[str, str] | None = None, status: int = 200) -> None:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(raw))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class FakeHub:
    endpoint: str
    folder: Path
    log: Path

    def asked(self) -> list[tuple[str, str | None, str | None]]:
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def bytes_read(self, ending: str) -> int:
        """How many bytes were asked for of the files of that ending."""
        ranges = [
            asked.removeprefix("bytes=").split("-")
            for path, asked, _ in self.asked()
            if asked and path.startswith("/bytes/") and path.endswith(ending)
        ]
        return sum(int(end) - int(start) + 1 for start, end in ranges)


@contextmanager
def serving(folder: Path) -> Iterator[FakeHub]:
    log = folder.parent / "asked.jsonl"
    child = subprocess.Popen([sys.executable, __file__, str(folder), str(log)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout
        yield FakeHub(f"http://127.0.0.1:{int(child.stdout.readline())}", folder, log)
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    Answering.folder, Answering.log = Path(sys.argv[1]), Path(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    print(server.server_port, flush=True)
    server.serve_forever()
