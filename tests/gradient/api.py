"""A stand-in of Paperspace's API on loopback: keeps state, records requests, fails on demand.

Answers as the real command line (2.99.4) and its SDK parse it. A route that it does not know is
an error of the test: see `unexpected`.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "0123456789abcdef-key-of-the-test"
Data = dict[str, Any]
Reply = tuple[int, Any]
Route = Callable[["Api", "Request", re.Match[str]], Reply]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


@dataclass
class Request:
    """One that arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def number(self, name: str, default: int) -> int:
        return int(self.query.get(name, [str(default)])[0])


@dataclass
class Fault:
    """What goes wrong: a status, `timeout`, `drop` (nothing done), `lost` (done, unanswered) or
    `forget` (done, answered and undone).

    At the request number `nth` (from 1), or at each that matches `pattern` ("METHOD path").
    """

    what: int | str | Callable[[Any], None]  # the last answers by itself
    nth: int = 0
    pattern: str = ""
    times: int = 1_000_000
    headers: dict[str, str] = field(default_factory=dict)
    words: str = ""

    def hits(self, number: int, request: Request) -> bool:
        wanted = re.search(self.pattern, str(request)) if self.pattern else number == self.nth
        if not wanted or self.times == 0:
            return False
        self.times -= 1
        return True


class Server(ThreadingHTTPServer):
    """One that says nothing of clients that hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Api:
    """The service's state and its server."""

    def __init__(self) -> None:
        self.storage = [{"id": "splvg73yqc1oj2s", "name": "Gradient Managed", "type": "s3"}]
        self.unexpected: list[str] = []
        self.clear()
        self.lock = threading.Lock()
        self.ids = itertools.count(1)
        self.closing = threading.Event()
        self.server = Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def clear(self) -> None:
        """Forget everything."""
        self.projects: list[Data] = []
        self.datasets: dict[str, Data] = {}
        self.secrets: dict[str, dict[str, str]] = {"team": {}}  # "team" or a project's id
        self.workflows: dict[str, Data] = {}
        self.notebooks: dict[str, Data] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []

    @contextmanager
    def running(self) -> Iterator[Api]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.closing.set()
            self.server.shutdown()
            self.server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """What makes the command line speak to this service."""
        names = ("CONFIG_HOST", "CONFIG_LOG_HOST", "API_HOST", "CONFIG_SERVICE_HOST")
        hosts = {f"PAPERSPACE_{name}": self.url for name in names}
        return hosts | {"PAPERSPACE_API_KEY": KEY, "PAPERSPACE_CLI_DEV": "true"}

    def fail(self, what: int | str | Callable[[Any], None], **when: Any) -> Fault:
        self.faults.append(Fault(what, **when))
        return self.faults[-1]

    def sent(self, pattern: str) -> list[Request]:
        """Give the requests that match, as "METHOD path"."""
        return [request for request in self.requests if re.search(pattern, str(request))]

    def changes(self) -> list[str]:
        """Give the requests that change something."""
        made = [request for request in self.requests if request.method != "GET"]
        return [str(each) for each in made if "preSignedUrls" not in each.path]

    def state(self) -> Data:
        """Give all that is kept, for a comparison."""
        kept = (self.projects, self.datasets, self.secrets, self.workflows, self.notebooks)
        return dict(enumerate(json.loads(json.dumps(kept))))

    def id(self, prefix: str, length: int) -> str:
        return prefix + str(next(self.ids)).rjust(length - len(prefix), "0")

    def add_project(self, name: str) -> str:
        handle = self.id("p", 9)
        made = {"handle": handle, "name": name, "dtCreated": "2026-01-01T00:00:00.000Z"}
        self.projects.append(made)
        return handle

    def add_dataset(self, name: str) -> str:
        id = self.id("ds", 15)
        made = {"id": id, "name": name, "storageProvider": self.storage[0], "versions": []}
        self.datasets[id] = made
        return id

    def add_version(self, dataset: str, message: str = "", committed: bool = True) -> str:
        version = self.id("v", 7)
        self.datasets[dataset]["versions"].append(
            {"version": version, "message": message, "isCommitted": committed}
            | {"tags": [], "files": {}}
        )
        return version

    def add_workflow(self, name: str, project: str) -> str:
        id = f"wf-{next(self.ids)}"
        self.workflows[id] = {"id": id, "name": name, "projectId": project, "runs": []}
        return id

    def handle(self, request: Request) -> Reply:
        """Do what a request asks for."""
        signed = request.path.startswith("/s3/")
        if not signed and request.headers.get("x-api-key") != KEY:
            return error(401, "Invalid API key")
        for method, pattern, route in ROUTES:
            if method == request.method and (match := pattern.fullmatch(request.path)):
                return route(self, request, match)
        self.unexpected.append(str(request))
        return error(404, "no such route")

    def version(self, match: re.Match[str]) -> Data | None:
        versions = self.datasets.get(match["dataset"], {}).get("versions", [])
        return next((each for each in versions if each["version"] == match["version"]), None)


def error(status: int, words: str) -> Reply:
    return status, {"error": {"name": "Error", "status": status, "message": words}}


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    def add(function: Route) -> Route:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return add


def page(request: Request, things: list[Any]) -> Reply:
    skip = request.number("filter[skip]", 0)
    return 200, things[skip : skip + request.number("filter[limit]", 20)]


DATASET = r"/datasets/(?P<dataset>[^/]+)"
VERSION = DATASET + r"/versions/(?P<version>[^/]+)"


@route("GET", "/projects/")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    return 200, {"data": api.projects, "total": len(api.projects)}


@route("POST", "/projects/")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    return 200, {"handle": api.add_project(request.body["name"])}


@route("GET", "/teams/namespace")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    return 200, "team"


@route("GET", "/storageProviders")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    return page(request, api.storage)


@route("GET", "/datasets")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    return page(request, sorted(api.datasets.values(), key=lambda each: str(each["name"])))


@route("POST", "/datasets")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    if request.body["storageProviderId"] not in [each["id"] for each in api.storage]:
        return error(404, "Storage provider not found")
    if request.body["name"] in [each["name"] for each in api.datasets.values()]:
        return error(409, "Dataset name already in use")
    return 200, {"id": api.add_dataset(request.body["name"])}


@route("GET", r"/datasets/ref/(?P<reference>.+)")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    name, _, wanted = match["reference"].partition(":")
    for dataset in api.datasets.values():
        versions = [each for each in reversed(dataset["versions"]) if each["isCommitted"]]
        for version in versions if name in (dataset["id"], dataset["name"]) else ():
            tags = [tag["name"] for tag in version["tags"]]
            if wanted in ("", "latest", version["version"], *tags):
                return 200, dataset | {"version": version}
    return error(404, "Dataset not found")


@route("GET", DATASET)
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    found = api.datasets.get(match["dataset"])
    return (200, found) if found else error(404, "Dataset not found")


@route("GET", DATASET + "/versions")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    if match["dataset"] not in api.datasets:
        return error(404, "Dataset not found")
    committed = request.query["filter[where][isCommitted]"] == ["true"]
    versions = api.datasets[match["dataset"]]["versions"]
    return page(request, [e for e in reversed(versions) if e["isCommitted"] == committed])


@route("POST", DATASET + "/versions")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    message = request.body.get("message", "")
    return 200, {"version": api.add_version(match["dataset"], message, committed=False)}


@route("GET", VERSION)
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    version = api.version(match)
    return (200, version) if version else error(404, "Dataset version not found")


@route("POST", VERSION)
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    version = api.version(match)
    if version is None:
        return error(404, "Dataset version not found")
    version.update(request.body)
    return 200, version


@route("POST", VERSION + "/s3/preSignedUrls")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    top = f"{api.url}/s3/{match['dataset']}/{match['version']}"
    urls = [f"{top}{call['params']['Key']}" for call in request.body["calls"]]
    return 200, [{"url": url, "expires_in": 3600} for url in urls]


@route("PUT", r"/s3/(?P<dataset>[^/]+)/(?P<version>[^/]+)/(?P<file>.+)")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    version = api.version(match)
    if version is None or version["isCommitted"]:
        return error(403, "AccessDenied")
    version["files"][match["file"]] = request.body
    return 200, None


@route("GET", "/(?P<entity>team|project)s/secrets")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    owner = request.query["projectId"][0] if match["entity"] == "project" else "team"
    return 200, [{"name": name} for name in sorted(api.secrets.get(owner, {}))]


@route("PUT", "/projects/secrets/(?P<name>[^/]+)")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    owner = request.query["projectId"][0]
    api.secrets.setdefault(owner, {})[match["name"]] = request.body["value"]
    return 200, {"name": match["name"]}


@route("GET", "/workflows")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    project = request.query["filter[where][projectId]"][0]
    found = [each for each in api.workflows.values() if each["projectId"] == project]
    return 200, [{key: each[key] for key in ("id", "name", "projectId")} for each in found]


@route("POST", "/workflows")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    return 200, api.workflows[api.add_workflow(request.body["name"], request.body["projectId"])]


@route("GET", "/workflows/(?P<id>[^/]+)/runs")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    if match["id"] not in api.workflows:
        return error(404, "Workflow not found")
    return 200, api.workflows[match["id"]]["runs"]


@route("POST", "/workflows/(?P<id>[^/]+)/runs")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    if match["id"] not in api.workflows:
        return error(404, "Workflow not found")
    runs = api.workflows[match["id"]]["runs"]
    status = {"phase": "Pending", "logId": f"log-{next(api.ids)}"}
    runs.append({"id": str(len(runs) + 1), "cluster": {"id": "cl1"}, "status": status})
    return 200, runs[-1]


@route("POST", "/notebooks/v2/createNotebook")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    handle = api.id("n", 13)
    project = request.body["projectId"]
    place = {"handle": handle, "projectHandle": project, "namespace": "team", "tags": []}
    api.notebooks[handle] = place | {"name": request.body.get("name"), "state": "Provisioning"}
    return 200, {"handle": handle}


@route("GET", "/notebooks/getNotebook")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    found = api.notebooks.get(request.body["notebookId"])
    return (200, found) if found else error(404, "Notebook not found")


@route("GET", "/notebooks/getNotebooks")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    wanted = json.loads(request.query["filter"][0])["filter"]
    found = list(api.notebooks.values())
    some = found[wanted["offset"] : wanted["offset"] + wanted["limit"]]
    return 200, {"notebookList": some, "total": len(found)}


@route("GET", "/entityTags/getTags")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    ids = request.query["entityIds"]
    tags = {id: api.notebooks.get(id, {"tags": []})["tags"] for id in ids}
    return 200, {id: [{"tag": {"name": name}} for name in names] for id, names in tags.items()}


@route("PUT", "/entityTags/updateTags")
def _(api: Api, request: Request, match: re.Match[str]) -> Reply:
    api.notebooks[request.body["entityId"]]["tags"] = request.body["tags"]
    return 200, {}


def _handler(api: Api) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            request = self.read()
            with api.lock:
                api.requests.append(request)
                number = len(api.requests)
                fault = next((each for each in api.faults if each.hits(number, request)), None)
                what = fault.what if fault else None
                done = (500, None)
                if what in (None, "lost", "forget"):
                    done = api.handle(request)
                if what == "forget":
                    for workflow in api.workflows.values():
                        workflow["runs"] = []
            if fault and isinstance(what, int):
                words = fault.words or f"refused as the test wants it: {what}"
                self.reply(*error(what, words), fault.headers)
            elif callable(what):
                self.close_connection = True
                with suppress(OSError):  # who asked has gone
                    what(self)
            elif what == "timeout":
                api.closing.wait(30)
                self.drop()
            elif what in ("drop", "lost"):
                self.drop()
            else:
                self.reply(*done, {})

        do_GET = do_POST = do_PUT = do_DELETE = serve

        def read(self) -> Request:
            parts = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            kind = self.headers.get("Content-Type", "")
            body = json.loads(text) if text and "json" in kind else text or None
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(parts.query)
            return Request(self.command, unquote(parts.path), query, body, headers)

        def reply(self, status: int, data: Any, headers: dict[str, str]) -> None:
            text = json.dumps(data).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
