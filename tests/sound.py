"""Every file of a generated project, read with a parser of its kind."""

from __future__ import annotations

import ast
import io
import json
import re
import tomllib
import zipfile
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

import nbformat
import yaml
from dockerfile_parse import DockerfileParser
from markdown_it import MarkdownIt
from markdown_it.token import Token
from packaging.requirements import Requirement

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
INSTRUCTIONS = {"FROM", "SHELL", "WORKDIR", "COPY", "RUN", "ENV", "EXPOSE", "CMD", "COMMENT"}
PLAIN = {"LICENSE", ".gitignore", ".dockerignore"}


def assert_sound(project: Path) -> None:
    """Read all files; an AssertionError names the one that can't be read."""
    for path in project.rglob("*"):
        if path.suffix == ".whl":
            assert not zipfile.ZipFile(path).testzip()
        elif path.is_file() and path.name not in PLAIN:
            read = READERS.get(path.suffix or path.name)
            assert read, f"{path}: no parser is known for such a file"
            try:
                read(path.read_text("utf-8"))
            except Exception as error:
                raise AssertionError(f"{path}: {error}") from error
    assert not dead_links(project / "README.md")


def links(path: Path) -> set[str]:
    """List the targets of a Markdown file's links and pictures."""
    tokens = [child for token in tokens_of(path) for child in token.children or []]
    targets = [token.attrGet("href") or token.attrGet("src") for token in tokens]
    return {str(target) for target in targets if target}


def dead_links(path: Path) -> set[str]:
    """List the links to files and headings that aren't there."""
    headings = {anchor(text) for text in re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)}
    dead = set()
    for link in links(path):
        file, _, heading = link.partition("#")
        if "://" not in link and file and not (path.parent / file).exists():
            dead.add(link)
        if not file and heading not in headings:
            dead.add(link)
    return dead


def anchor(heading: str) -> str:
    """Name a heading as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def texts(path: Path) -> list[str]:
    """List the heading and paragraphs as a reader sees them; other blocks and marks stay marked."""
    blocks = [token.children or [] for token in tokens_of(path) if token.type == "inline"]
    return [
        "".join(c.content if c.type == "text" else f"<{c.type}>" for c in children).strip()
        for children in blocks
    ]


def tokens_of(path: Path) -> list[Token]:
    return markdown(path.read_text("utf-8"))


@lru_cache(maxsize=16)
def markdown(text: str) -> list[Token]:
    """Parse a Markdown file, which several tests of a project ask for."""
    return MARKDOWN.parse(text)


def notebook(text: str) -> None:
    """Check a notebook against its format, and the Python in its cells."""
    content = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(content)
    for cell in content.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


def dockerfile(text: str) -> None:
    """Check that a Dockerfile has the instructions of one, the first of which is FROM."""
    parsed = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    names = [line["instruction"] for line in parsed if line["instruction"] != "COMMENT"]
    assert names[0] == "FROM"
    assert set(names) <= INSTRUCTIONS


def requirements(text: str) -> None:
    """Check that each line asks for a package."""
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "--find-links ")):
            Requirement(line.partition(" #")[0].partition(" --hash")[0])


# Most files are the same in all projects: each text is read once.
READERS: dict[str, Callable[[str], object]] = {
    ".py": cache(ast.parse),
    ".toml": tomllib.loads,
    ".yaml": cache(yaml.safe_load),
    ".json": cache(json.loads),
    ".ipynb": cache(notebook),
    ".md": markdown,
    ".txt": cache(requirements),
    "Dockerfile": cache(dockerfile),
}
