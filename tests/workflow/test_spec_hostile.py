"""Files that are no workflows, or that are meant to do harm: a clear finding, never a traceback."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gradlab.check.check import check
from gradlab.spec import reader
from gradlab.spec.reader import read
from gradlab.spec.spec import parse

from .conftest import Project

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "bomb": (
        BOMB.encode(),
        "5:36: error [alias] the aliases up to here stand for more than 100,000 values; "
        "write the values out",
    ),
    "bomb of merge keys": (
        b"a: &a {" + b", ".join(b"k%d: 1" % i for i in range(1000)) + b"}\n"
        b"b:\n" + b"  - {<<: *a}\n" * 101,
        "52:10: error [alias] the aliases up to here stand for more than 100,000 values; "
        "write the values out",
    ),
    "loop": (
        b"jobs: &jobs\n  train: *jobs\n",
        "2:10: error [alias] the alias `*jobs` stands inside of what it refers to; "
        "write the value out",
    ),
    "merge of text": (
        b"jobs:\n  <<: text\n",
        "2:7: error [alias] `<<` takes a mapping, or a list of mappings; "
        "refer to a mapping: `<<: *anchor`",
    ),
    "depth": (
        b"a: " + b"[" * 500_000,
        "1:103: error [syntax] this is nested deeper than 100 levels; "
        "a workflow needs fewer than 10",
    ),
    "depth by dashes": (
        b"a:\n" + b"- " * 400_000,
        "2:199: error [syntax] this is nested deeper than 100 levels; "
        "a workflow needs fewer than 10",
    ),
    "size": (
        b"# much\n" * 1_500_000,
        "1:1: error [unreadable] it is larger than 8,000,000 bytes; give the path of a workflow",
    ),
    "binary": (
        b"\x7fELF\x02\x01\x01\x00\x00",
        "1:1: error [unreadable] the character U+007F is not allowed in YAML; "
        "remove it, if this is a text file at all",
    ),
    "latin-1": (
        "jobs:\n  # é\n".encode("latin-1"),
        "2:1: error [unreadable] it is not text in UTF-8; save it as UTF-8",
    ),
    "UTF-16": (
        "jobs: {}\n".encode("utf-16"),
        "1:1: error [unreadable] it is not text in UTF-8; save it as UTF-8",
    ),
    "NUL by an escape": (
        b'jobs: {a: "\\0"}\n',
        "1:11: error [syntax] the text holds a character that no program takes "
        "(NUL or half a pair); remove it",
    ),
    "empty": (
        b"",
        "1:1: error [type] the file is empty; a workflow is a mapping with the key `jobs`",
    ),
    "comment": (
        b"# nothing\n",
        "1:1: error [type] the file is empty; a workflow is a mapping with the key `jobs`",
    ),
    "list": (
        b"- jobs\n",
        "1:1: error [type] the file holds no mapping at its top; "
        "a workflow is a mapping with the key `jobs`",
    ),
    "text": (
        b"jobs\n",
        "1:1: error [type] the file holds no mapping at its top; "
        "a workflow is a mapping with the key `jobs`",
    ),
    "two documents": (
        b"jobs: {}\n---\njobs: {}\n",
        "2:1: error [syntax] a second YAML document begins here; make it a file",
    ),
    "object": (
        b"jobs: !!python/object/apply:os.system ['touch owned']\n",
        "1:7: error [tag] the tag `!!python/object/apply:os.system` is none for a workflow, "
        "which holds plain values; remove the tag",
    ),
    "own tag": (
        b"jobs: !include other.yaml\n",
        "1:7: error [tag] the tag `!include` is none for a workflow, which holds plain values; "
        "remove the tag",
    ),
    "list as key": (
        b"[a, b]: c\n",
        "1:1: error [syntax] a list or mapping can't be a key; "
        "write a name; quote braces that are text",
    ),
    "no date": (
        b"jobs: 2024-99-99\n",
        "1:7: error [syntax] YAML takes `2024-99-99` for a date, and it is none; "
        'quote it: "2024-99-99"',
    ),
}


@pytest.fixture(params=["libyaml", "PyYAML"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with libyaml, and as where it is missing."""
    if request.param == "libyaml":
        if not yaml.__with_libyaml__:
            pytest.skip("PyYAML was built without libyaml")
        monkeypatch.setattr(reader, "_LOADER", yaml.CSafeLoader)
    else:
        monkeypatch.setattr(reader, "_LOADER", yaml.SafeLoader)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_clear_finding(name: str, tmp_path: Path) -> None:
    content, expected = HOSTILE[name]
    path = tmp_path / "train.yaml"
    path.write_bytes(content)
    begin = time.process_time()
    assert [str(each) for each in check(path)] == [f"{path}:{expected}"]
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    "line",
    [
        *("key: [", "key: {a: b", "key: 'a", 'key: "a', "key: @a", "key: *", "key: &", "key: - a"),
        *(
            "key: a: b",
            "? a",
            "key: %a",
            "key: |x",
            "key\nother: b",
            "%YAML 9.9",
            "key: >\n a\n\tb",
        ),
        *('key: "\\UFFFFFFFF"', 'key: "\\ud800"', "key: !<", "key: !!int x", "key: !!bool x"),
        *(
            "key: 0001-01-01T00:00:00+23:59",
            "key: 0x_",
            "key: !!int ''",
            "key: !!set",
            "a: .nan",
            "- - -",
        ),
    ],
)
def test_broken_yaml_is_explained(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(line + "\n")
    found = check(path)
    assert any(each.severity == "error" for each in found)
    assert all(each.line <= len(line.splitlines()) + 1 for each in found)


def test_more_values_than_a_workflow_can_need_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_VALUES", 1000)
    path = tmp_path / "train.yaml"
    path.write_text("jobs:\n" + "  - a\n" * 2000)
    (found,) = check(path)
    assert found.rule == "unreadable"
    assert "more than 1,000 values; make several workflows of it" in str(found)


def test_a_plain_file_of_thousands_of_jobs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    script = "python train.py --seed " + "x" * 300
    job = f"{{uses: script@v1, with: {{image: 'python:3.11', script: {script}}}}}\n"
    path.write_text("jobs:\n" + "".join(f"  seed-{i}: {job}" for i in range(3200)))
    assert path.stat().st_size > 1_000_000
    assert len(parse(read(path)).jobs) == 3200


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_bytes(b"\xef\xbb\xbfjobs:\r\n  train:\r\n    uses: script@v2\r\n")
    assert [(each.line, each.column, each.rule) for each in check(path)] == [
        (3, 5, "unknown-action")
    ]


def test_columns_count_characters_whatever_their_width(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text('jobs: {"é💥": {uses: script@v2}}\n')
    assert [(each.line, each.column) for each in check(path)] == [(1, 8), (1, 15)]


@pytest.mark.parametrize(
    "number", ["1" + ":00" * 300_000, "9" * 900_000, "0." + "1" * 900_000, "1_" * 450_000]
)
def test_a_number_without_end_takes_no_time(number: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(f"timeout: {number}\n")
    begin = time.process_time()
    assert {each.rule for each in check(path)} == {"missing-key", "type"}
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    "text",
    [
        *("/inputs/" + "a" * 150_000 + "$", "/inputs/" + "." * 150_000, "/inputs/" * 20_000),
        *(".outputs." * 20_000, "secret:" * 20_000, "://a" * 40_000, "://" + "a:" * 75_000),
        *("sk-" * 50_000, "-----BEGIN " * 15_000, "a.outputs.b " * 10_000, "# " * 75_000),
        *("${{ " * 35_000, "${{" + " " * 145_000, "a=" * 70_000, "curl -u " * 17_000),
        *("cd " * 50_000, "mkdir /" * 20_000, " | tee /outputs/" * 9_000, "<<A " * 35_000),
        *("KEY='" * 30_000, "://" + "a" * 145_000, "{" * 145_000, "$GITHUB_" * 17_000),
        *("{{ env." * 20_000, "${env." + "a" * 145_000, "{{" + " " * 145_000),
    ],
)
def test_no_text_makes_the_checks_slow(text: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        f'jobs:\n  train:\n    inputs:\n      x: "{text}"\n    env:\n      A: "{text}"\n'
        f'    uses: script@v1\n    with:\n      image: bash:5\n      script: "{text}\\n{text}"\n'
    )
    begin = time.process_time()
    assert check(path)
    assert time.process_time() - begin < 5


def test_a_thousand_mistakes_are_found_as_fast_as_one(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    job = "\n    uses: script@v2\n    needs: [none-{0}]\n    inputs: {{a: other-{0}.outputs.b}}\n"
    path.write_text("jobs:\n" + "".join(f"  job-{i}:{job.format(i)}" for i in range(1000)))
    begin = time.process_time()
    assert len(check(path)) == 3000
    assert time.process_time() - begin < 8


def test_a_circle_of_a_thousand_jobs_is_one_short_finding(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    job = "{{needs: [job-{1}], uses: container@v1, with: {{image: bash:5}}}}"
    jobs = (f"  job-{i}: {job.format(i, (i + 1) % 1000)}\n" for i in range(1000))
    path.write_text("jobs:\n" + "".join(jobs))
    (found,) = check(path)
    assert found.rule == "cycle"
    assert len(found.message) < 300


def test_nothing_in_a_name_reaches_the_terminal_or_breaks_the_line(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(f'"\\e[31m\\n\\u202e{"x" * 10_000}": 1\njobs: {{}}\n')
    for found in check(path):
        assert str(found).isprintable()
        assert len(str(found)) < 1200


@pytest.mark.parametrize("value", ["null", "5", "[]", "text", "{a: {b: {}}}", "[{a: [null]}]"])
def test_any_value_in_any_place_is_survived(value: str, tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "context": {"event": {"github": {"url": "x"}}},
        "defaults": {"env": {"A": "b"}, "resources": {"instance-type": "C5"}},
        "inputs": {"data": {"type": "dataset", "with": {"ref": "x"}, "optional": True}},
        "on": {"github": {"branches": {"only": "main"}}},
        "jobs": {
            "train": {
                "needs": ["train"],
                "inputs": {"a": "train.outputs.b", "c": {"type": "dataset", "with": {"ref": "x"}}},
                "outputs": {"b": {"type": "dataset", "with": {"ref": "x"}}},
                "env": {"A": "b"},
                "resources": {"instance-type": "C5"},
                "timeout": 5,
                "uses": "script@v1",
                "with": {"image": "bash:5", "script": "ls /inputs/a", "args": ["x"]},
            }
        },
    }
    path = tmp_path / "train.yaml"

    def replace_each(data: Any) -> None:
        for key in list(data) if isinstance(data, dict) else range(len(data)):
            kept, data[key] = data[key], yaml.safe_load(value)
            path.write_text(yaml.safe_dump(whole, sort_keys=False))
            check(path)
            parse(read(path))
            data[key] = kept
            if isinstance(kept, dict | list):
                replace_each(kept)

    replace_each(whole)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(alphabet="ajobs:usewithonyt01 \n\t-[]{}'\"&*!|>%@`#,?~.<=\\x/é", max_size=80))
@example("jobs: {a: {uses: [}]}")
def test_no_text_at_all_is_a_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    for found in check(path):
        assert found.line >= 1
        assert found.column >= 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "there is no such file"),
        ("folder", "it is not a file"),
        ("link to itself", "there is no such file"),
        ("device", "it is not a file"),
        ("memory", "it can't be read (Input/output error)"),
    ],
)
def test_what_is_no_file_is_refused(what: str, message: str, project: Project) -> None:
    path = {"device": Path("/dev/zero"), "memory": Path("/proc/self/mem")}.get(
        what, project.root / "train.yaml"
    )
    if what == "folder":
        path.mkdir()
    elif what == "link to itself":
        path.symlink_to(path)
    output = project.fails(2, "check", str(path))
    assert output.startswith(f"{path}:1:1: error [unreadable] {message}; ")
