"""Odd answers: each is refused with one clear message, or arrives everywhere as it was typed."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from .conftest import TEMPLATE, Bake, generate
from .kit import applies, of_the_kit, requirements
from .sound import assert_sound, links, texts
from .test_template import ANSWERS

NASTY = [
    "quotes \" and ' and `",
    "back\\slash \\n \\u0041 \\",
    "# not a comment: [a, b] {c: d} & *e !f % g > h | i",
    "$HOME $(touch pwned) `id`; rm -rf * && exit",
    "emoji \U0001f525 and \u05e9\u05dc\u05d5\u05dd and e\u0301",
    "<script>alert(1)</script> <!-- -->",
    "'''",
    '"""',
    "- - yes",
    "x" * 200,
    " spaces  around ",
    "C:\\new\\table",
    "\u00a0\u200b\ufeff\uffff",
    "{{ 7 * 7 }} {{ missing }} {% raw %} {# gone? #} ${#array[@]}",
    "{% no such tag",
    "{{",
    "1. not a list",
    "    not code",
    "| no | table |",
    "https://example.com/_not_slanted_",
    "%s %d {0} {name}",
    "\u202eright to left\u202c \u0645\u0631\u062d\u0628\u0627",
    "!!python/object/apply:os.system [id]",
    "~",
    "null",
    "@OWNER@ @REPOSITORY@",
    "${{ secrets.TOKEN }}",
    "](x) ![a](b) [c]: d",
    "<b>&amp;</b> &lt;",
    "&" * 200,
]


# Pieces of the languages that answers end up in; texts of them are odder than random ones.
PIECES = [*"\"'`\\ #:&*!|>%@{}[]()<>-=,;$~.", "{{", "}}", "{%", "%}", "{#", "#}", "'''", '"""']
PIECES += [
    "<!--",
    "-->",
    "[a](b)",
    "![",
    "***",
    "___",
    "~~",
    "1. ",
    "- ",
    "a",
    "b c",
    "é",
    "e\u0301",
]
PIECES += ["\U0001f525", "\u05e9\u05dc", "\u202e", "\ufeff", "${{ github.token }}", "$(id)", "con"]
PIECES += ["!!python/object", "@REPOSITORY@", "cookiecutter.author"]
ENDS = [*"\n\r\t\0\x85\u2028\ud800"]  # which no answer may hold
LINE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=200),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
)
ODD = st.one_of(
    LINE, st.text(max_size=300), st.lists(st.sampled_from(PIECES + ENDS), max_size=30).map("".join)
)
SLUG = st.from_regex(r"[a-z][a-z0-9_]{0,30}", fullmatch=True)
OWNER = st.from_regex(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,18}", fullmatch=True)
ANY = {
    "project_name": ODD,
    "project_slug": st.one_of(SLUG, ODD),
    "description": ODD,
    "author": ODD,
    "github_owner": st.one_of(OWNER, ODD),
}
# Nearly always accepted: one bad answer of five would hide the others.
TOGETHER = st.fixed_dictionaries(
    {
        "project_name": LINE,
        "project_slug": SLUG,
        "description": LINE,
        "author": LINE,
        "github_owner": OWNER,
    }
)


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts_arrive_as_they_were_typed(bake: Bake, text: str) -> None:
    author = f"A {text}"[:200]
    answers = {"project_name": author, "description": text, "author": author}
    assert_arrived(bake(**answers, license="BSD-3-Clause"), answers)


def assert_arrived(project: Path, answers: dict[str, str]) -> None:
    """All files can be read and say what was typed."""
    assert_sound(project)
    asked = {**ANSWERS, "project_slug": project.name, **answers}
    table = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert table["name"] == asked["project_slug"]
    assert table["description"] == asked["description"]
    assert table["authors"] == [{"name": asked["author"]}]
    licence = (project / "LICENSE").read_text("utf-8")
    assert f" {asked['author']}\n" in licence
    shown = texts(project / "README.md")
    assert shown[0] == asked["project_name"].strip()
    assert not asked["description"].strip() or asked["description"].strip() in shown
    place = f"{asked['github_owner']}/{asked['project_slug']}"
    assert table["urls"]["Repository"] == f"https://github.com/{place}"
    definition = yaml.safe_load((project / "runtimes/cpu.yaml").read_text("utf-8"))
    assert definition["workspace"] == f"https://github.com/{place}"
    badge = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/train.ipynb"
    assert badge in links(project / "README.md")
    assert badge in (project / "notebooks/train.ipynb").read_text("utf-8")


def assert_refused_or_arrived(answers: dict[str, str]) -> None:
    """Generate a project; where the answers are refused, nothing is left behind."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            project = generate(Path(folder), answers)
        except FailedHookException:
            assert not list(Path(folder).iterdir())
        else:
            assert_arrived(project, answers)


@pytest.mark.slow
@pytest.mark.parametrize("question", ANY)
def test_any_answer_is_refused_or_arrives_as_it_was_typed(question: str) -> None:
    @given(ANY[question])
    def check(answer: str) -> None:
        assert_refused_or_arrived({"project_slug": "fine", question: answer})

    check()


@pytest.mark.slow
@settings(max_examples=3 * settings().max_examples)
@given(TOGETHER)
def test_any_answers_together_are_refused_or_arrive_as_they_were_typed(
    answers: dict[str, str],
) -> None:
    assert_refused_or_arrived(answers)


def test_jinja_that_is_typed_at_the_prompt_is_text_and_not_run(tmp_path: Path) -> None:
    typed = "{{ 7 * 7 }} {% raw %} {# gone? #} ${#array[@]}"
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE)]
    answers = ["", "", typed, "Ann", "ann", "", "", "2"]
    subprocess.run(
        [*command, "-o", str(tmp_path)],
        input="\n".join([*answers, ""]),
        capture_output=True,
        text=True,
        check=True,
    )
    given = {"description": typed, "author": "Ann", "github_owner": "ann"}
    assert_arrived(tmp_path / "my_model", given)


def refusal(tmp_path: Path, **answers: str) -> str:
    """Run cookiecutter as a user does, which must fail, and give what it printed."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input"]
    command += ["-o", str(tmp_path)]
    command += [f"{name}={answer}" for name, answer in answers.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0, "these answers should have been refused"
    assert not list(tmp_path.iterdir()), "nothing may be left behind"
    return done.stderr


@pytest.mark.parametrize(
    "slug, reason",
    [
        ("class", "a word of the Python language"),
        ("match", "a word of the Python language"),
        ("json", "a module of Python's standard library"),
        ("torch", "the name of something that the project uses"),
        ("gradlab", "the name of something that the project uses"),
        ("test", "the name of something that the project uses"),
        ("tests", "the name of something that the project uses"),
        ("con", "a device on Windows"),
        ("lpt1", "a device on Windows"),
        ("My-Model", "no lower-case Python name"),
        ("2fast", "no lower-case Python name"),
        ("../up", "no lower-case Python name"),
        ("mödel", "no lower-case Python name"),
        ("a b", "no lower-case Python name"),
        ("x" * 51, "51 characters, more than 50"),
        ("x" * 300, "300 characters, more than 50"),
        ("a/b/c", "no lower-case Python name"),
        ("", "no lower-case Python name"),
        ("my_", "ends in an underscore"),
        ("pyyaml", "the name of something that the project uses"),
        ("build", "the name of something that the project uses"),
    ],
)
def test_a_package_name_that_would_break_is_refused(tmp_path: Path, slug: str, reason: str) -> None:
    output = refusal(tmp_path, project_slug=slug)
    assert reason in output
    assert "Name of the Python package: " in output and "_model" in output


def test_no_package_that_a_project_installs_can_be_its_name(project: Path) -> None:
    hook = (TEMPLATE / "hooks" / "pre_gen_project.py").read_text()
    taken = {*hook.partition('TAKEN = """')[2].partition('"""')[0].split()}
    assert installed_names(project) - taken - sys.stdlib_module_names == set()


def installed_names(project: Path) -> set[str]:
    """Name what the project and its extras ask for, and the modules that come with it."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = [line for extra in table["optional-dependencies"].values() for line in extra]
    todo = [*requirements(project / "requirements.txt"), *map(Requirement, extras)]
    todo += of_the_kit(["s3", "export", *ANSWERS["framework"]])
    asked = {underscored(requirement.name) for requirement in todo}
    installed, mine = set[str](), {"gradlab"}
    while todo:
        name = underscored(todo.pop().name)
        if name not in installed | mine:
            installed.add(name)
            with suppress(metadata.PackageNotFoundError):  # TensorFlow, which lies elsewhere
                todo += filter(applies, map(Requirement, metadata.requires(name) or []))
    modules = metadata.packages_distributions().items()
    modules_of = {module.lower() for module, of in modules if installed & {*map(underscored, of)}}
    return asked | {name for name in modules_of if re.fullmatch("[a-z][a-z0-9_]*", name)}


def underscored(name: str) -> str:
    return re.sub("[-_.]+", "_", name).lower()


@pytest.mark.parametrize("owner", ["-a", "a-", "a--b", "a_b", "a b", "x" * 40, "", "a/b", "mödel"])
def test_an_owner_that_github_would_not_take_is_refused(tmp_path: Path, owner: str) -> None:
    output = refusal(tmp_path, github_owner=owner)
    assert f"GitHub owner: {owner!r}\n" in output
    assert "is no name that GitHub accepts" in output


@pytest.mark.parametrize("name", ["", "   ", "two\nlines", "\x07bell", "x" * 201])
def test_a_project_name_that_nobody_can_read_is_refused(tmp_path: Path, name: str) -> None:
    assert "Name of the project: " in refusal(tmp_path, project_name=name, project_slug="fine")


def test_all_problems_are_told_at_once_in_one_frame(tmp_path: Path) -> None:
    output = refusal(tmp_path, project_slug="torch", github_owner="a_b", author=" ")
    assert all(
        label in output for label in ("Author", "Name of the Python package", "GitHub owner")
    )
    assert output.count("The project was not generated:") == 1


@pytest.mark.parametrize(
    "name, slug",
    [
        ("My Model", "my_model"),
        ("  Zebra-Finder 2! ", "zebra_finder_2"),
        ("3D Nets", "d_nets"),
        ("ÜBER", "ber"),
        ("???", "my_model"),
    ],
)
def test_the_package_is_named_after_the_project(bake: Bake, name: str, slug: str) -> None:
    assert bake(project_name=name).name == slug
