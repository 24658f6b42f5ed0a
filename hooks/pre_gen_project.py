"""Refuse answers that would make a broken project, all at once and before anything is written."""

# Nothing from a file, not even __future__: that is looked for among all files that lie beside this
# one, in the folder for temporary ones, and takes longer than all that is done here.
import sys

# As digits, for there is no answer that could end such a string.
CODED = {
    "project_name": "{{ cookiecutter.project_name | hexadecimal }}",
    "project_slug": "{{ cookiecutter.project_slug | hexadecimal }}",
    "description": "{{ cookiecutter.description | hexadecimal }}",
    "author": "{{ cookiecutter.author | hexadecimal }}",
    "github_owner": "{{ cookiecutter.github_owner | hexadecimal }}",
}
LABELS = {
    "project_name": "Name of the project",
    "project_slug": "Name of the Python package",
    "description": "Description",
    "author": "Author",
    "github_owner": "GitHub owner",
}
ANSWERS = {
    name: bytes.fromhex(code).decode("utf-8", "surrogatepass") for name, code in CODED.items()
}
LONGEST = 200
LONGEST_SLUG = 50
LONGEST_OWNER = 39
SMALL = set("abcdefghijklmnopqrstuvwxyz")
SMALL_OR_DIGIT = SMALL | set("0123456789")
# Modules and packages that the project installs or runs with, and standard modules of newer
# Pythons: one would be found in the place of the other. A test compares them with what is
# installed.
TAKEN = """
    absl absl_py aiobotocore aiofiles aiohappyeyeballs aiohttp aioitertools aiosignal annotationlib
    ast_serialize astunparse attr attrs boto3 botocore build certifi charset_normalizer clang
    cloudpickle compression contourpy cookiecutter cuda cusparselt cycler datasets dateutil dist
    distutils docs docstring_parser etils filelock flatbuffers flax flaxlib_src fonttools frozenlist
    fsspec functorch gast google google_pasta gradient gradlab grpc grpcio h5py huggingface_hub
    humanize hypothesis idna iniconfig ipykernel ipython isympy jax jaxlib jinja2 jmespath joblib
    jsonschema jsonschema_specifications jupyter kaggle keras kiwisolver libclang librt lightning
    markdown markdown_it markdown_it_py markupsafe matplotlib mdurl ml_dtypes mpl_toolkits mpmath
    msgpack multidict mypy mypy_extensions mypyc namex narwhals networkx notebook notebooks numpy
    nvidia onnx onnx_ir onnxruntime onnxscript opt_einsum optax optree orbax orbax_checkpoint
    packaging pandas pasta pathspec pil pillow pip pkg_resources pluggy profiling prometheus_client
    propcache protobuf psutil py pygments pylab pyparsing pytest python_dateutil pyyaml referencing
    regex requests rich rpds rpds_py ruff runtimes s3fs s3transfer safetensors scikit_learn scipy
    setuptools simplejson six sklearn src storage sympy tensorboard tensorboard_data_server
    tensorflow tensorflow_cpu tensorstore termcolor test tests threadpoolctl tokenizers torch
    torchaudio torchgen torchvision tqdm transformers treescope triton typeguard typing_extensions
    tyro urllib3 uvloop vendor werkzeug wheel workflows wrapt yaml yarl
"""
# Windows can't make folders of these names.
DEVICES = {"aux", "con", "nul", "prn", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}

Problem = tuple[str, str, str]  # what was asked, what is wrong with the answer, what would do


def problems() -> list[Problem]:
    """Find what is wrong with the answers."""
    found: list[Problem] = []
    for name, label in LABELS.items():
        answer = ANSWERS[name]
        if any(is_control(character) for character in answer):
            found.append((label, "has a line break or a control character", "one line of text"))
        elif len(answer) > LONGEST:
            found.append((label, f"has {len(answer)} characters", f"at most {LONGEST}"))
    for name in ("project_name", "author"):
        if not ANSWERS[name].strip():
            found.append((LABELS[name], "is empty", "any name"))
    if wrong := slug_problem(ANSWERS["project_slug"]):
        found.append((LABELS["project_slug"], wrong, f"a name such as {better_slug()}_model"))
    if not is_owner(ANSWERS["github_owner"]):
        advice = "letters, digits and single hyphens between them, such as octo-cat"
        wrong = "is no name that GitHub accepts"
        found.append((LABELS["github_owner"], wrong, f"at most {LONGEST_OWNER} {advice}"))
    return found


def is_control(character: str) -> bool:
    """Tell whether a character ends a line, controls something or is half of one."""
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or code in (0x2028, 0x2029) or 0xD800 <= code < 0xE000


def is_owner(name: str) -> bool:
    """Tell whether GitHub would take a name."""
    parts = name.split("-")
    return len(name) <= LONGEST_OWNER and all(p.isascii() and p.isalnum() for p in parts)


def slug_problem(slug: str) -> str:
    """Say what keeps a name from being that of a Python package of its own, if anything does."""
    if not (slug and slug[0] in SMALL and SMALL_OR_DIGIT | {"_"} >= set(slug)):
        return "is no lower-case Python name"
    if slug.endswith("_"):
        return "ends in an underscore, which pip doesn't allow"
    if len(slug) > LONGEST_SLUG:
        return f"has {len(slug)} characters, more than {LONGEST_SLUG}"
    if is_keyword(slug):
        return "is a word of the Python language"
    if slug in sys.stdlib_module_names:
        return "is a module of Python's standard library"
    if slug in TAKEN.split():
        return "is the name of something that the project uses"
    return "is a device on Windows" if slug in DEVICES else ""


def is_keyword(name: str) -> bool:
    """Tell whether Python has a use of its own for a name."""
    try:
        compile(f"{name} = 0", "name", "exec")
    except SyntaxError:
        return True
    return name in ("case", "match", "type")


def better_slug() -> str:
    """Make the beginning of a package's name of what was typed."""
    kept = (c if c in SMALL_OR_DIGIT else " " for c in ANSWERS["project_slug"].lower())
    better = "_".join("".join(kept).split()).lstrip("0123456789_")
    return (better or "my")[:40]


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


found = problems()
if found:
    print(frame(found), file=sys.stderr)
    sys.exit(1)
