"""What is wrong in the scripts of a workflow: names, files and folders as the shell takes them.

Promises: what only a program that the script calls could know is no finding, and what a heredoc
or quotes keep from the shell is not the shell's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..spec.document import Document, Problem
from ..spec.spec import Job, Port, Spec

Keys = tuple[str | int, ...]
Texts = list[tuple[Keys, str]]

_RUN = ("script", "command", "args", "path")  # the parameters that hold paths
# Programs that read and write only what they are told to, by words that stand in the script.
_TOOLS = (
    "[ [[ apk apt apt-get awk aws basename bunzip2 bzip2 cat cd chmod chown conda cp curl cut date "
    "declare df diff dirname dpkg du echo env exit export false find free gdown git grep gsutil "
    "gunzip gzip head hf hostname huggingface-cli id kaggle kill ln local ls mamba md5sum mkdir mv "
    "nproc nvidia-smi pip pip3 printenv printf pwd readonly rm rmdir rsync sed set sha1sum "
    "sha256sum sleep sort split sudo tail tar tee test touch tr true type ulimit uname uniq unset "
    "unxz unzip wait wandb wc wget which whoami xz yes yum zcat zip : exec then else do if while "
    "until elif fi done esac"
)
_SAFE = ("echo", "printf", "date", "ls", "pwd", "cat", "hostname", "whoami", "uname", "nproc")
_PROGRAM = re.compile(r"\bxargs\b|-exec\b|\bpip3? install\b.*(?:\s-e\b|\s\.(?:\s|$))|<<")
_COMMENT = re.compile(r"(?:^|\s)#.*", re.MULTILINE)
_SEPARATOR = re.compile(r"\n|;+|&&|\|\|?|(?<![<>0-9])&(?!>)|\$?\(|\)|`|\{(?=\s)|\}")
_ASSIGNMENT = re.compile(r"\s*(?:[A-Za-z_]\w*\+?=(?:\"[^\"]*\"|'[^']*'|[^\s\"']*)\s*)+")
_LOCAL_CODE = re.compile(
    r"\b(?:python[\d.]*|bash|sh|julia|Rscript|node)\s+(?:-u\s+)?(?!/)(\w[\w./-]*\.(?:py|sh|jl|R|js)\b)"
)
_FETCHES = re.compile(r"\b(?:cd|clone|wget|curl|cp|mv|unzip|tar|gdown|kaggle|download)\s|inputs")
_HEREDOC = re.compile(
    r"<<[-~]? {0,9}[\"'\\\\]([A-Za-z_]\w*)"
)  # whose body the shell leaves as it is
# What comes before belongs to another path, as in texts.py.
_SPELLED = re.compile(
    r"(?<![\w.~$%@*}/)\]:-])(?<![\w})][\"'])/(?!inputs\b|outputs\b)((?i:inputs?|outputs?))(?![\w.-])"
)
_MADE = re.compile(  # a folder that the script makes itself
    r"\bmkdir\b[^\n;&|]{0,200}?\s[\"']?/(\w+)|(?:-d|-o|-C|-P|-O|dir|-v)[ =]?[\"']?/(\w+)"
    r"|\b(?:cp|mv|ln|rsync|clone|install|mount)\b[^\n;&|]{0,200}\s[\"']?/(\w+)[^\s;&|]*\s*(?=[\n;&|]|\Z)"
)
_INSIDE = re.compile(
    r"(?:(?P<go>\b(?:mkdir|cd|pushd)\s)(?:[^\n;&|]{0,200}\s)?[\"']?)?"
    r"/(?P<folder>inputs|outputs)/(?P<name>[\w.-]+)(?(go)|/[\w.*$\"'{])"
)
_ONTO = re.compile(
    r"(?:(?<![<>2-9])>{1,2}|\btee\s(?:-a\s+)?)\s*[\"']?/(?P<folder>outputs)/(?P<name>[\w.-]+)"
    r"[\"']?(?=[\s;&|)]|$)"
)
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


def scripts(spec: Spec, document: Document) -> Iterator[Problem]:
    """Give what these rules find wrong."""
    for keys, text in all_texts(document.data, ()):
        yield from _expressions(document, keys, text)
    for job in spec.jobs.values():
        texts = run_texts(job)
        yield from _spelled(document, job, texts)
        yield from _kinds(spec, document, job, texts)
        for keys, text in texts:
            yield from _variables(document, job, keys, text)


def run_texts(job: Job) -> Texts:
    """Give what a job runs, with the keys that lead to it."""
    return [
        (("jobs", job.name, "with", *keys), text)
        for name in _RUN
        for keys, text in all_texts(job.parameters.get(name), (name,))
    ]


def all_texts(data: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    """Give all texts in the data with the keys that lead to them."""
    match data:
        case str():
            yield keys, data
        case list():
            for place, item in enumerate(data):
                yield from all_texts(item, (*keys, place))
        case dict():
            for key, item in data.items():
                yield from all_texts(item, (*keys, key))


def calls_program(text: str) -> bool:
    """Tell whether a script calls a program that may use a folder without a word of it here."""
    text = _COMMENT.sub("", text).replace("\\\n", " ")
    if _PROGRAM.search(text):
        return True
    return any(_program(command) for command in _SEPARATOR.split(text))


def _program(command: str) -> bool:
    words = _words(command)
    while words and words[0] in ("then", "else", "do", "if", "while", "until", "elif", "sudo", "!"):
        words = words[1:]
    return (
        bool(words) and words[0] not in _TOOLS.split() and words[0] not in ("for", "case", "select")
    )


def _words(command: str) -> list[str]:
    """Give a command's words without the variables that are set for it."""
    found = _ASSIGNMENT.match(command)
    return command[found.end() if found else 0 :].split()


def runs_local_code(text: str) -> bool:
    """Tell whether a script runs a file of the folder where it begins, and goes nowhere first."""
    text = _COMMENT.sub("", text)
    found = _LOCAL_CODE.search(text)
    # A file that the script names before may be made or fetched by it.
    return bool(found) and not _FETCHES.search(text) and text.count(found[1] if found else "") == 1


def _spelled(document: Document, job: Job, texts: Texts) -> Iterator[Problem]:
    """Find paths that look like /inputs or /outputs and are neither."""
    whole = _COMMENT.sub("", "\n".join(text for _, text in texts))
    made = {name for found in _MADE.findall(whole) for name in found}
    for keys, text in texts:
        for name in sorted(set(_SPELLED.findall(_COMMENT.sub("", text))) - made):
            right = f"/{name.lower().rstrip('s')}s"
            message = f"job `{job.name}` uses /{name}, which is not {right}"
            pattern = re.compile(rf"/{name}(?![\w.-])")
            mark = document.find(pattern, *keys)
            yield Problem(mark, "path-spelling", message, f"write {right}/NAME")


def _kinds(spec: Spec, document: Document, job: Job, texts: Texts) -> Iterator[Problem]:
    """Find strings used as folders, folders as files, and pipelines that hide a failure."""
    ports = {("inputs", name): port for name, port in job.inputs.items()}
    ports |= {("outputs", name): port for name, port in job.outputs.items()}
    kinds = {place: _kind(spec, port) for place, port in ports.items()}
    for keys, text in texts:
        code = _COMMENT.sub("", text)
        for found in (*_INSIDE.finditer(code), *_ONTO.finditer(code)):
            folder, name, onto = found["folder"], found["name"], found.re is _ONTO
            kind = kinds.get((folder, name))
            if kind in (("dataset", "volume") if onto else ("string",)):
                message = f"`{name}` of job `{job.name}` is a {kind}, which is "
                message += "a folder, no file" if onto else "one file, no folder"
                advice = "read or write the file itself, or make it a volume or a dataset"
                if onto:
                    advice = f"write to a file in it: /outputs/{name}/FILE; or make it a string"
                mark = document.find(re.compile(re.escape(found[0])), *keys)
                yield Problem(mark, "file-or-folder", message, advice)
        for name in sorted(_hiding(code)):
            if kinds.get(("outputs", name)) == "string":
                message = f"a failure of a pipeline's first part leaves `{name}` of job "
                message += f"`{job.name}` empty, and the job succeeds"
                advice = "begin the script with `set -eo pipefail`"
                mark = document.find(re.compile(rf"/outputs/{re.escape(name)}"), *keys)
                yield Problem(mark, "pipe-hides-failure", message, advice)


def _kind(spec: Spec, port: Port) -> str:
    if not port.source:
        return port.type
    origin, name = port.source
    ports = spec.jobs[origin].outputs if origin in spec.jobs else {}
    ports = spec.inputs if origin == "workflow" and origin not in spec.jobs else ports
    return ports[name].type if name in ports else ""


def _hiding(code: str) -> set[str]:
    """Give the outputs that the last part of a pipeline writes, whose first part may fail."""
    if "pipefail" in code or "PIPESTATUS" in code or "|" not in code:
        return set()
    names = set()
    for command in re.split(r"&&|\|\||;|\n", code.replace("\\\n", " ")):
        *first, last = re.split(r"\|&?", command)
        words = _words(first[0]) if first else []
        if words and words[0] not in _SAFE:
            names |= {found[1] for found in _OUTPUT.finditer(last)}
    return names


def _shell_only(text: str) -> str:
    """Take away what a heredoc with a quoted word keeps from the shell."""
    kept, word = [], ""
    for line in text.split("\n"):
        if word:
            word = "" if line.strip() == word else word
            continue
        kept.append(line)
        found = _HEREDOC.search(line)
        word = found[1] if found else ""
    return "\n".join(kept)


def _expressions(document: Document, keys: Keys, text: str) -> Iterator[Problem]:
    """Find expressions of GitHub Actions and other systems, which nothing replaces here."""
    script = keys[-1] == "script" if keys else False
    for found in _EXPRESSION.finditer(_shell_only(text) if script else text):
        line = found.string[: found.start()].rpartition("\n")[2]
        if script and line.count("'") % 2:
            continue
        said = (found["github"] or found["other"] or "").strip()
        head = re.split(r"\W", said, maxsplit=1)[0]
        if head == "context":
            continue
        system = "another system" if found["other"] else "GitHub Actions"
        rule = "foreign-expression" if found["other"] else "github-expression"
        message = f"`{found[0]}` is an expression of {system}, without effect here"
        advice = _INSTEAD.get(head, "write the value; Gradient replaces nothing of the kind")
        mark = document.find(re.compile(re.escape(found[0])), *keys)
        yield Problem(mark, rule, message, advice)


def _variables(document: Document, job: Job, keys: Keys, text: str) -> Iterator[Problem]:
    """Find variables that another service sets, and nobody here."""
    code = _COMMENT.sub("", _shell_only(text))
    for name in sorted(set(_VARIABLE.findall(code))):
        if (
            not _OWN.fullmatch(name)
            or name in job.env
            or re.search(rf"\b{name}=|read {name}", code)
        ):
            continue
        message = (
            f"job `{job.name}` uses ${name}, which another service sets, and Gradient does not"
        )
        advice = "give it a value in `env`, or remove it"
        mark = document.find(re.compile(rf"\$\{{?{name}\b"), *keys)
        yield Problem(mark, "foreign-variable", message, advice)
