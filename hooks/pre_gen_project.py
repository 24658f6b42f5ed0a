"""Refuse answers that would make a broken project, all at once and before anything is written."""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Iterator

# tojson leaves no single quote in the text, so no answer can end the string.
ANSWERS: dict[str, str] = json.loads(r'''{{ cookiecutter | tojson }}''')  # fmt: skip

LABELS = {
    "project_name": "Name of the project",
    "project_slug": "Name of the Python package",
    "description": "Description",
    "author": "Author",
    "github_owner": "GitHub owner",
}
LONGEST = 200
LONGEST_SLUG = 50
# Modules and packages that the project installs or runs with, and standard modules of newer
# Pythons: one would be found in the place of the other. A test compares them with what is
# installed.
TAKEN = """
    absl absl_py annotationlib ast_serialize attr attrs boto3 botocore build cloudpickle
    compression contourpy cookiecutter cuda cusparselt cycler datasets dateutil dist distutils
    docs docstring_parser filelock flatbuffers fonttools fsspec functorch google gradient
    gradlab grpc grpcio hypothesis iniconfig ipykernel ipython isympy jax jinja2 jmespath joblib
    jsonschema jsonschema_specifications jupyter kaggle keras kiwisolver librt lightning
    markdown markupsafe matplotlib ml_dtypes mpl_toolkits mpmath mypy mypy_extensions mypyc
    narwhals networkx notebook notebooks numpy nvidia onnx onnx_ir onnxruntime onnxscript
    packaging pandas pathspec pil pillow pip pkg_resources pluggy profiling protobuf py pygments
    pylab pyparsing pytest python_dateutil pyyaml referencing rpds rpds_py ruff runtimes s3fs
    s3transfer safetensors scikit_learn scipy setuptools six sklearn src storage sympy
    tensorboard tensorboard_data_server tensorflow test tests threadpoolctl torch torchaudio
    torchgen torchvision tqdm transformers triton typeguard types_jsonschema types_pyyaml
    types_tqdm typing_extensions tyro urllib3 werkzeug wheel workflows yaml
"""
# Windows can't make folders of these names.
DEVICES = {"aux", "con", "nul", "prn", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}

Problem = tuple[str, str, str]  # what was asked, what is wrong with the answer, what would do


def problems() -> Iterator[Problem]:
    """Find what is wrong with the answers."""
    for name, label in LABELS.items():
        answer = ANSWERS[name]
        if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", answer):
            yield label, "has a line break or a control character", "one line of text"
        elif len(answer) > LONGEST:
            yield label, f"has {len(answer)} characters", f"at most {LONGEST}"
    for name in ("project_name", "author"):
        if not ANSWERS[name].strip():
            yield LABELS[name], "is empty", "any name"
    yield from slug_problems(ANSWERS["project_slug"])
    owner = ANSWERS["github_owner"]
    if not re.fullmatch(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", owner) or len(owner) > 39:
        yield (
            LABELS["github_owner"],
            "is no name that GitHub accepts",
            "at most 39 letters, digits and single hyphens between them, such as octo-cat",
        )


def slug_problems(slug: str) -> Iterator[Problem]:
    """Find what keeps a name from being that of a Python package of its own."""
    wrong = ""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        wrong = "is no lower-case Python name"
    elif slug.endswith("_"):
        wrong = "ends in an underscore, which pip doesn't allow"
    elif len(slug) > LONGEST_SLUG:
        wrong = f"has {len(slug)} characters, more than {LONGEST_SLUG}"
    elif keyword.iskeyword(slug) or keyword.issoftkeyword(slug):
        wrong = "is a word of the Python language"
    elif slug in sys.stdlib_module_names:
        wrong = "is a module of Python's standard library"
    elif slug in TAKEN.split():
        wrong = "is the name of something that the project uses"
    elif slug in DEVICES:
        wrong = "is a device on Windows"
    if wrong:
        better = re.sub(r"[^a-z0-9]+", "_", slug.lower()).strip("_").lstrip("0123456789_")
        yield LABELS["project_slug"], wrong, f"a name such as {(better or 'my')[:40]}_model"


def frame(found: list[Problem]) -> str:
    """Write the problems down in one framed message."""
    answers = {label: ANSWERS[name] for name, label in LABELS.items()}
    lines = ["The project was not generated:", ""]
    for label, wrong, better in found:
        typed = repr(answers[label])
        shown = typed if len(typed) <= 60 else typed[:57] + "..."
        lines += [f"{label}: {shown}", f"    {wrong}; what would do: {better}", ""]
    lines.append("Run the command again with other answers.")
    edge = "-" * 79
    return "\n".join(["", edge, *(f"| {line}".rstrip() for line in lines), edge, ""])


found = list(problems())
if found:
    print(frame(found), file=sys.stderr)
    sys.exit(1)
