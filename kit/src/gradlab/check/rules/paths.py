"""Rules on the paths of scripts: what no input or output stands for, and what nothing uses.

Promises: a path that holds a variable or a pattern, or that is a part of another path, is no
finding, and neither is what only a program that the script calls could know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from ...spec.document import Document
from ...spec.spec import Job, Port, Spec
from ..registry import Found, rule
from ..shell import Texts, all_texts, calls_program, code, run_texts, runs_local_code
from ..words import close

_FILLERS = ("git-checkout@v1", "s3-download@v1")  # actions that write into one output
_PATTERN = r"[$*?{\[`\\%<]"  # after it, a name is known only when the script runs
# What comes before belongs to another path: repo/inputs, $HOME/inputs, "$ROOT"/inputs, ../inputs.
_PATH = re.compile(
    r"(?<![\w.~$%@*}/)\]-])(?<![\w})][\"'])"
    rf"/(inputs|outputs)/([\w.-]++)(?!{_PATTERN})"
)
_OPEN_PATH = re.compile(rf"/(inputs|outputs)(?:(?:/\.?)?(?![\w./-])|/[\w.-]*{_PATTERN})")
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


@rule("path-spelling", "warning", "a script uses /input, /Outputs or the like")
def path_spelling(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        texts = run_texts(job)
        whole = code("\n".join(text for _, text in texts))
        made = {name for found in _MADE.findall(whole) for name in found}
        for keys, text in texts:
            for name in sorted(set(_SPELLED.findall(code(text))) - made):
                right = f"/{name.lower().rstrip('s')}s"
                message = f"job `{job.name}` uses /{name}, which is not {right}"
                pattern = re.compile(rf"/{name}(?![\w.-])")
                yield document.find(pattern, *keys), message, f"write {right}/NAME"


@rule("file-or-folder", "error", "a script uses a string as a folder, or a folder as a file")
def file_or_folder(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        for keys, text in run_texts(job):
            for found in (*_INSIDE.finditer(code(text)), *_ONTO.finditer(code(text))):
                name, onto = found["name"], found.re is _ONTO
                what = kind(spec, job, found["folder"], name)
                if what not in (("dataset", "volume") if onto else ("string",)):
                    continue
                message = f"`{name}` of job `{job.name}` is a {what}, which is "
                message += "a folder, no file" if onto else "one file, no folder"
                advice = "read or write the file itself, or make it a volume or a dataset"
                if onto:
                    advice = f"write to a file in it: /outputs/{name}/FILE; or make it a string"
                yield document.find(re.compile(re.escape(found[0])), *keys), message, advice


def kind(spec: Spec, job: Job, folder: str, name: str) -> str:
    """Give the type of what a folder of a job stands for, also where another job makes it."""
    ports = _ports(job, folder)
    if name in ports and (origin := ports[name].source):
        ports = spec.jobs[origin[0]].outputs if origin[0] in spec.jobs else {}
        ports = spec.inputs if origin[0] == "workflow" and "workflow" not in spec.jobs else ports
        name = origin[1]
    return ports[name].type if name in ports else ""


def _ports(job: Job, folder: str) -> dict[str, Port]:
    return job.inputs if folder == "inputs" else job.outputs


@rule("undeclared-path", "error", "a script uses /inputs/NAME or /outputs/NAME undeclared")
def undeclared_path(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        run = run_texts(job)
        for keys, text in run + _paths_in_env(job, run, document):
            for folder, name in _used(text):
                if name not in _ports(job, folder):
                    pattern = re.compile(rf"/{folder}/{re.escape(name)}(?![\w-])")
                    message = f"job `{job.name}` uses /{folder}/{name}, which it does not declare"
                    advice = _declare(spec, job, folder, name)
                    yield document.find(pattern, *keys), message, advice


def _paths_in_env(job: Job, run: Texts, document: Document) -> Texts:
    """Give the job's own variables that its script uses."""
    whole = "\n".join(text for _, text in run)
    own = all_texts(document.get("jobs", job.name, "env"), ("jobs", job.name, "env"))
    return [each for each in own if re.search(rf"\$\{{?{re.escape(str(each[0][-1]))}\b", whole)]


def _used(text: str) -> set[tuple[str, str]]:
    """Give the folders (inputs or outputs, name) that a script uses for certain."""
    found = _PATH.findall(code(text))
    return {(folder, name.rstrip(".")) for folder, name in found if name.strip(".")}


def _declare(spec: Spec, job: Job, folder: str, name: str) -> str:
    other = "outputs" if folder == "inputs" else "inputs"
    if name in _ports(job, other):
        return f"write /{other}/{name}"
    handed = [port.name for port in job.inputs.values() if port.source and port.source[0] == name]
    if folder == "inputs" and handed:
        return f"write /inputs/{handed[0]}: the folder has the input's name, not the job's"
    if near := close(name, _ports(job, folder)):
        return near
    if folder == "outputs":
        return f"add `{name}: {{type: volume}}` to its `outputs`, or a dataset"
    makers = (each.name for each in spec.jobs.values() if name in each.outputs and each is not job)
    if maker := next(makers, ""):
        return f"add `{name}: {maker}.outputs.{name}` to its `inputs`, and `{maker}` to `needs`"
    return f"add `{name}` to its `inputs`"


@rule("unused-input", "warning", "a script does not use an input")
def unused_input(spec: Spec, document: Document) -> Found:
    for port, script, message in _unnamed(spec, "inputs"):
        if not calls_program(script):
            yield port.mark, message, "remove it, or use it"
        elif _is_code(spec, port) and runs_local_code(script):
            advice = f"begin it with `cd /inputs/{port.name}`: it runs a file of that folder"
            yield port.mark, message, advice


@rule("unused-output", "warning", "a script does not use an output")
def unused_output(spec: Spec, document: Document) -> Found:
    for port, script, message in _unnamed(spec, "outputs"):
        if not calls_program(script):
            yield port.mark, message, "remove it, or use it"


def _unnamed(spec: Spec, folder: str) -> Iterator[tuple[Port, str, str]]:
    """Give the folders that no script names, with the script and a message."""
    for job in spec.jobs.values():
        if job.uses != "script@v1":
            continue  # other actions use what they are given by themselves
        script = "\n".join(text for _, text in run_texts(job))
        text = "\n".join([script, *job.env.values()])
        if folder in _OPEN_PATH.findall(text):
            continue
        for port in _ports(job, folder).values():
            if f"{folder}/{port.name}" not in text:
                message = f"the script of job `{job.name}` does not name /{folder}/{port.name}"
                yield port, script, message


def _is_code(spec: Spec, port: Port) -> bool:
    """Tell whether an input is what a git-checkout put out."""
    origin = port.source[0] if port.source else ""
    return origin in spec.jobs and spec.jobs[origin].uses == "git-checkout@v1"


@rule("output-path", "error", "an action that fills an output does not say which, or a wrong one")
def output_path(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        if job.uses not in _FILLERS:
            continue
        folders = [port.name for port in job.outputs.values() if port.type != "string"]
        path, keys = job.parameters.get("path"), ("jobs", job.name)
        if path is None and len(folders) > 1:
            message = f"{job.uses} of job `{job.name}` has {len(folders)} outputs and no `path`"
            advice = f"say which one it fills: `path: /outputs/{folders[0]}`"
            yield document.mark(*keys, "outputs"), message, advice
        elif job.outputs and not folders:
            message = f"{job.uses} of job `{job.name}` has no output that is a folder"
            yield document.mark(*keys, "outputs"), message, "make its output a volume or a dataset"
        elif isinstance(path, str) and folders and not _fills(path, job):
            message = f"`path` of job `{job.name}` is `{path}`, which is in no output"
            advice = f"write `/outputs/{folders[0]}`, or a folder in it"
            yield document.mark(*keys, "with", "path"), message, advice


def _fills(path: str, job: Job) -> bool:
    """Tell whether a path is in an output, or in one that is missing, which is told elsewhere."""
    parts = PurePosixPath(path).parts
    missing = parts[2:3] and parts[2] not in job.outputs
    inside = parts[:2] == ("/", "outputs") and ".." not in parts and len(parts) > 2
    return inside and (bool(missing) or job.outputs[parts[2]].type != "string")
