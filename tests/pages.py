"""The pages of the template and of a project: their links, headings and commands."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode as Node

from . import warm
from .kit import TEMPLATE, cache_of_types, paths

PACKAGE = "my_model"
TUTORIAL = "docs/tutorial.md"
CONVERSIONS = "docs/conversions/"  # like the tutorial, pages whose blocks are done in their order
PARTS = {"services.md"}  # which are put into the README of a project
NO_PAGES = {"{{cookiecutter.project_slug}}", "demo", "tests"}
PROGRAMS = "cookiecutter|cruft|docker|git|gradient|gradlab|make|pip|pipx|python3?|tensorboard"
COMMAND = re.compile(rf"(?:\w+=\S+ )*(?:{PROGRAMS}|torchrun|uvx?) \S.*")
ONLY_ITS_NAME = re.compile(rf"gradlab \w+|python -m {PACKAGE}(?: \w+)?")
CHANGING = re.compile(r"\b(?:v\d+-[a-z0-9]{6}|mo[0-9a-f]{13}|\d[\d,.:]*)|-{5,}")
STARTED = "import sys\nsys.executable = {!r}\n"
PLACEHOLDER = re.compile(r"(?<![\w.-])[A-Z]{2,}(?![\w=])|<\w+>|\.\.\.")


@dataclass(frozen=True)
class Page:
    """A page of the template or of a project: the file `name` below `root`."""

    root: Path
    name: str

    @cached_property
    def nodes(self) -> list[Node]:
        markdown = MarkdownIt("commonmark").enable("table")
        return list(Node(markdown.parse((self.root / self.name).read_text("utf-8"))).walk())

    def of(self, *types: str) -> Iterator[Node]:
        return (node for node in self.nodes if node.type in types)

    def at(self, node: Node) -> str:
        """Give the file and line at which a node, or what holds it, begins."""
        parent: Node | None = node
        while parent and not (parent.type != "root" and parent.map):
            parent = parent.parent
        return f"{self.name}:{parent.map[0] + 1 if parent and parent.map else 0}"

    def links(self) -> Iterator[tuple[str, str]]:
        for node in self.of("link", "image"):
            yield self.at(node), str(node.attrs.get("href") or node.attrs.get("src"))
        for node in self.of("html_block", "html_inline"):
            for target in re.findall(r"""(?:href|src)=["']([^"']*)""", node.content):
                yield self.at(node), target

    def anchors(self) -> set[str]:
        """Give the names that GitHub makes of the headings."""
        found: set[str] = set()
        seen = Counter[str]()
        for heading in self.of("heading"):
            words = "".join(node.content for node in heading.walk() if not node.children)
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
        return found

    def mentions(self) -> Iterator[tuple[Node, str]]:
        """Give what looks like a command in running text and tables."""
        for node in self.of("code_inline"):
            if COMMAND.fullmatch(node.content):
                yield node, plain(node.content)

    def commands(self) -> Iterator[tuple[str, str]]:
        """Give the commands of blocks and tables, and those of the text that are whole."""
        for node in self.of("fence"):
            if node.info == "sh" and not self.name.startswith((TUTORIAL, CONVERSIONS)):
                for text in node.content.replace("\\\n", " ").splitlines():
                    if text.strip() and not text.lstrip().startswith("#"):
                        yield self.at(node), plain(text)
        for node, text in self.mentions():
            partial = ONLY_ITS_NAME.fullmatch(text) or PLACEHOLDER.search(text)
            if is_listed(node) or not partial:
                yield self.at(node), text


def plain(command: str) -> str:
    return " ".join(command.replace("<package>", PACKAGE).split())


def is_listed(node: Node) -> bool:
    """Tell whether a node is in a table, in a column that is headed `command`."""
    cell = node.parent and node.parent.parent
    if cell is None or cell.type != "td" or not cell.parent:
        return False
    table = cell.parent.parent and cell.parent.parent.parent
    assert table
    head = table.children[0].children[0].children[cell.parent.children.index(cell)]
    return [text.content for text in head.children] == ["command"]


def pages_of(root: Path) -> list[Page]:
    found = sorted(path.relative_to(root) for path in root.rglob("*.md"))
    return [
        Page(root, str(path))
        for path in found
        if not path.parts[0].startswith(".")
        and path.parts[0] not in NO_PAGES
        and str(path) not in PARTS
    ]


class Shell:
    """Runs what a page shows in a project, as where it is installed."""

    def __init__(
        self,
        project: Path,
        tools: Path,
        modules: tuple[str, ...] = warm.TRAINING,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.project = project
        tools.mkdir()
        for name, before in (("python", ()), ("gradlab", ("-m", "gradlab"))):
            warm.program(tools / name, modules, *before, env=env)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GRADLAB_")}
        # One thread, for other tests share the cores.
        self.env = {**clean, "PYTHONPATH": paths(project / "src", tools), "OMP_NUM_THREADS": "1"}
        # Where a page finds what comes with the template, and that it fetches nothing.
        self.env |= {"TEMPLATE": str(TEMPLATE), "HF_HUB_OFFLINE": "1", **(env or {})}
        self.env |= warm.for_jobs(modules, env)
        self.env["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
        # The project's tests start Python: this one, which has loaded what they need.
        (tools / "started.py").write_text(STARTED.format(str(tools / "python")))
        self.env["PYTEST_PLUGINS"] = "started"

    def run(self, text: str, folder: Path | None = None) -> str:
        """Run lines of a shell and give what they print."""
        done = subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=folder or self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        return done.stdout

    def check(self, shared: Path) -> None:
        """Let the project's types and its own tests be looked at, which have to be green."""
        with cache_of_types(self.project, shared) as cache:
            self.run(f"python -m mypy --cache-dir {cache}")
        assert " passed" in self.run("python -m pytest -q")

    def follow(self, page: Page) -> None:
        """Do what a page says, block by block; what it shows has to be printed."""
        printed, name = "", self.project.name
        for node in page.of("fence"):
            kind = node.info.partition(" ")[0]
            if kind in ("python", "diff"):
                edit(node, self.project)
            elif kind == "sh":
                printed = self.run(node.content).replace(f"{self.project}/", "")
                printed = printed.replace(str(self.project), name)
            elif kind == "text":
                missing = not_printed(node.content, printed)
                assert not missing, f"{page.at(node)}: {missing}\n{printed}"
        self.lint()

    def lint(self) -> None:
        self.run("python -m ruff check . && python -m ruff format --check .")


def edit(block: Node, project: Path) -> None:
    """Change a project as a block says: it is a whole file, or a diff."""
    kind, _, path = block.info.partition(" ")
    if kind == "python":
        (project / path).write_text(block.content, "utf-8")
    elif kind == "diff":
        change = ["git", "apply"]
        subprocess.run(change, cwd=project, input=block.content, text=True, check=True)


def not_printed(shown: str, printed: str) -> str:
    """Give the first line of a page's output that a program did not print in its place."""
    lines = iter([common(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        if line != "..." and common(line) not in lines:
            return line
    return ""


def common(line: str) -> str:
    """Leave out what differs from run to run: numbers, ids and the widths of columns."""
    return " ".join(CHANGING.sub("N", line).split())
