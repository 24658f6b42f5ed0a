"""Rules on what the shell makes of a script: pipelines, expressions and variables.

Promises: what a heredoc or quotes keep from the shell is no finding.
"""

from __future__ import annotations

import re

from ...spec.document import Document
from ...spec.spec import Spec
from ..registry import Found, rule
from ..shell import all_texts, code, run_texts, shell_only, words
from .paths import kind

_SAFE = ("echo", "printf", "date", "ls", "pwd", "cat", "hostname", "whoami", "uname", "nproc")
_OUTPUT = re.compile(r"/outputs/([\w.-]+)(?!/)")
_EXPRESSION = re.compile(
    r"\$\{\{(?P<github>[^{}\n]*)\}\}"
    # Of Argo, Jinja and their like, but not what Docker's --format and Jinja's own files hold.
    r"|(?:\{\{\s*|\$\{)(?P<other>(?:secrets|inputs|workflow|matrix|needs|steps|github|vars|env)\.[\w.-]+)"
    r"(?:\s*\}\}|\})"
)
_VARIABLE = re.compile(
    r"\$\{?((?:GITHUB|RUNNER|ACTIONS|CI|GITLAB|BITBUCKET|CIRCLE|TRAVIS|BUILD|AZURE)_[A-Z_]+)\b(?!:?[-+=?])"
)
_OWN = re.compile(
    r"GITHUB_(?:SHA|REF|WORKSPACE|ENV|OUTPUT|REPOSITORY|ACTOR|RUN_\w+|PATH|STEP_SUMMARY|EVENT_\w+"
    r"|REF_NAME|HEAD_REF|BASE_REF|JOB|ACTION\w*|WORKFLOW\w*|SERVER_URL|API_URL|TOKEN)"
    r"|RUNNER_(?:TEMP|OS|ARCH|TOOL_CACHE|NAME)|CI_(?:COMMIT|PROJECT|JOB|PIPELINE|REGISTRY|API|"
    r"MERGE_REQUEST|SERVER|DEFAULT|ENVIRONMENT|REPOSITORY)\w*|GITLAB_(?:USER|CI)\w*"
    r"|BITBUCKET_(?:COMMIT|BRANCH|CLONE|REPO|BUILD)\w*|CIRCLE_\w+|TRAVIS_\w+"
)
_INSTEAD = {  # of a GitHub expression's first word
    "secrets": "store it as a secret of the service, and give it to the job's `env`: "
    "`NAME: secret:NAME`; in the script it is $NAME",
    "env": "write it in the script, as $NAME",
    "vars": "write the value, or give it as an input of the workflow",
    "matrix": "write a job for each case",
    "inputs": "make it an input of the job: `NAME: workflow.inputs.NAME`, the file /inputs/NAME",
    "workflow": "make it an input of the job: `NAME: workflow.inputs.NAME`, the file /inputs/NAME",
    "needs": "make it an input of the job: `NAME: JOB.outputs.NAME`, the file /inputs/NAME",
    "steps": "make it an output of a job of the type string, the file /outputs/NAME",
    "github": "in git-checkout@v1 write `context.event.github.url` and `context.event.github.ref`",
}


@rule("pipe-hides-failure", "warning", "a pipeline may leave a string empty, and nothing fails")
def pipe_hides_failure(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        for keys, text in run_texts(job):
            for name in sorted(_hiding(code(text))):
                if kind(spec, job, "outputs", name) == "string":
                    message = f"a failure of a pipeline's first part leaves `{name}` of job "
                    message += f"`{job.name}` empty, and the job succeeds"
                    mark = document.find(re.compile(rf"/outputs/{re.escape(name)}"), *keys)
                    yield mark, message, "begin the script with `set -eo pipefail`"


def _hiding(script: str) -> set[str]:
    """Give the outputs that the last part of a pipeline writes, whose first part may fail."""
    if "pipefail" in script or "PIPESTATUS" in script or "|" not in script:
        return set()
    names = set()
    for command in re.split(r"&&|\|\||;|\n", script.replace("\\\n", " ")):
        *first, last = re.split(r"\|&?", command)
        begin = words(first[0]) if first else []
        if begin and begin[0] not in _SAFE:
            names |= {found[1] for found in _OUTPUT.finditer(last)}
    return names


@rule(
    "foreign-expression",
    "warning",
    "an expression of another system, such as Argo's, which nothing replaces",
)
def foreign_expression(spec: Spec, document: Document) -> Found:
    return _expressions(document, "other", "another system")


@rule("github-expression", "error", "an expression of GitHub Actions, which nothing replaces")
def github_expression(spec: Spec, document: Document) -> Found:
    return _expressions(document, "github", "GitHub Actions")


def _expressions(document: Document, group: str, system: str) -> Found:
    for keys, text in all_texts(document.data, ()):
        script = keys[-1] == "script"
        for found in _EXPRESSION.finditer(shell_only(text) if script else text):
            line = found.string[: found.start()].rpartition("\n")[2]
            if found[group] is None or (script and line.count("'") % 2):
                continue
            head = re.split(r"\W", found[group].strip(), maxsplit=1)[0]
            if head != "context":
                message = f"`{found[0]}` is an expression of {system}, without effect here"
                advice = _INSTEAD.get(
                    head, "write the value; Gradient replaces nothing of the kind"
                )
                yield document.find(re.compile(re.escape(found[0])), *keys), message, advice


@rule("foreign-variable", "warning", "a variable that GitHub or GitLab sets, and Gradient does not")
def foreign_variable(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        for keys, text in run_texts(job):
            script = code(shell_only(text))
            for name in sorted(set(_VARIABLE.findall(script))):
                made = name in job.env or re.search(rf"\b{name}=|read {name}", script)
                if _OWN.fullmatch(name) and not made:
                    message = f"job `{job.name}` uses ${name}, which another service sets, "
                    message += "and Gradient does not"
                    mark = document.find(re.compile(rf"\$\{{?{name}\b"), *keys)
                    yield mark, message, "give it a value in `env`, or remove it"
