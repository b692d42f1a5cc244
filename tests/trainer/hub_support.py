"""A small server with the parts of the hub's API that the upload and download of a model need.

The hub's own server cannot be installed. The tests call this server by the hub's client library.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "a" * 34
"""The only token that the server accepts."""


@dataclass
class Repository:
    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b""}})
    commits: int = 0


@dataclass
class Hub:
    """The state of the server: repositories by their names, uploaded objects by their digests."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: int = 0
    """Number of large files that were sent."""
    failing: dict[str, list[int]] = field(default_factory=dict)
    """Errors to send. If a request's URL path contains the key, it is answered with the next HTTP status."""
    tokens: set[str] = field(default_factory=set)
    """The Authorization headers of all requests."""


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha(branch: str) -> str:
    """Return the commit that the server gives for a branch."""
    return hashlib.sha1(branch.encode()).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


class HubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        """Do not log requests."""

    def reply(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self) -> None:
        raw, path = self.content(), unquote(urlsplit(self.path).path)
        for part, statuses in self.hub.failing.items():
            if part in path and statuses:
                return self.reply(statuses.pop(0), {"error": "not now"})
        if path.startswith("/objects/"):  # the client sends no token to this signed address
            self.hub.objects[path.rpartition("/")[2]] = raw
            self.hub.uploads += 1
            return self.reply(200)
        self.hub.tokens.add(self.headers.get("Authorization") or "")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(raw))
        name = re.match(r"(?:/api/models)?/([^/]+/[^/]+?)(?:\.git)?(?=/|$)", path)
        repository = self.hub.repositories.get(name[1]) if name else None
        if name is None or repository is None:
            return self.reply(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
        return self.of_repository(name[1], repository, path[name.end() :], raw)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repositories.setdefault(name, Repository(private))
        self.reply(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def of_repository(self, name: str, repository: Repository, rest: str, raw: bytes) -> None:
        _, kind, *more = rest.split("/") if rest else ("", "")
        wanted = more[0] if more else "main"
        branch = next((files for ref, files in repository.branches.items() if wanted in (ref, sha(ref))), {})
        if kind == "branch":
            repository.branches.setdefault(more[0], dict(repository.branches["main"]))
            return self.reply(200)
        if kind in ("", "revision"):
            siblings = [{"rfilename": path} for path in branch]
            info = {"id": name, "private": repository.private, "sha": sha(wanted), "siblings": siblings}
            return self.reply(200, info)
        if kind == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
                for path, content in branch.items()
            ]
            return self.reply(200, entries)
        if kind == "preupload":
            asked = [file["path"] for file in json.loads(raw)["files"]]
            return self.reply(200, {"files": [self.mode(path, branch) for path in asked]})
        if kind == "info":
            return self.reply(200, {"objects": [self.upload(each) for each in json.loads(raw)["objects"]]})
        if kind == "commit":
            return self.commit(name, repository, branch, [json.loads(line) for line in raw.splitlines()])
        if kind == "resolve":
            file = branch.get("/".join(more[1:]))
            if file is None:
                return self.reply(404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound"})
            return self.reply(200, file, {"ETag": f'"{git_oid(file)}"', "X-Repo-Commit": sha("main")})
        return self.reply(404, {"error": rest})

    def mode(self, path: str, branch: dict[str, bytes]) -> dict[str, Any]:
        there = branch.get(path)
        oid = None
        if there is not None:
            oid = hashlib.sha256(there).hexdigest() if is_large(path) else git_oid(there)
        mode = "lfs" if is_large(path) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.hub.objects:
            return asked
        return asked | {"actions": {"upload": {"href": f"{self.hub.address}/objects/{asked['oid']}"}}}

    def commit(
        self, name: str, repository: Repository, branch: dict[str, bytes], lines: list[dict[str, Any]]
    ) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                branch[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                branch[value["path"]] = self.hub.objects[value["oid"]]
        repository.commits += 1
        address = f"{self.hub.address}/{name}/commit/{'1' * 40}"
        self.reply(200, {"success": True, "commitOid": "1" * 40, "commitUrl": address})


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Start the server on this machine, and yield its state."""
    hub = Hub()
    handler = type("Handler", (HubHandler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
