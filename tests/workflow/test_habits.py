"""What people write who come from elsewhere: `gradlab check` says what would do on Gradient.

And what works at the service, however odd: of that it says nothing.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gradlab.check.check import Finding, check

from .conftest import Project

JOB = """\
jobs:
  train:
    uses: {uses}
    with:
      {with_}
"""
SCRIPT = """\
jobs:
  clone:
    outputs:
      repo: {{type: volume}}
    uses: git-checkout@v1
    with: {{url: "https://github.com/user/repository"}}
  train:
    needs: [clone]
    inputs:
      repo: clone.outputs.repo
      data: {{type: dataset, with: {{ref: images}}}}
      note: {{type: string, with: {{value: hello}}}}
    outputs:
      model: {{type: dataset, with: {{ref: digits}}}}
      cache: {{type: volume}}
      id: {{type: string}}
    env:
      EPOCHS: "3"
      {env}
    uses: script@v1
    with:
      image: python:3.11
      script: |-
        {script}
"""


def found(tmp_path: Path, text: str) -> list[Finding]:
    """Check a text."""
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return check(path)


def in_script(tmp_path: Path, script: str, env: str = "SEED: '1'") -> list[Finding]:
    """Check a workflow with a script, each line of it indented as YAML wants it."""
    return found(tmp_path, SCRIPT.format(script=script.replace("\n", "\n        "), env=env))


def rules(findings: list[Finding]) -> list[str]:
    """Give the rules of findings."""
    return [each.rule for each in findings]


# Keys of other systems: where they stand, what is written, what the advice has to name.
KEYS = [
    ("job", "depends_on: [clone]", "`needs`"),
    ("job", "dependsOn: [clone]", "`needs`"),
    ("job", "dependencies: [clone]", "`needs`"),
    ("job", "environment: {A: b}", "`env`"),
    ("job", "variables: {A: b}", "`env`"),
    ("job", "artifacts: {paths: [x]}", "`outputs`"),
    ("job", "volumes: ['./a:/b']", "`inputs`"),
    ("job", "machine: P4000", "instance-type"),
    ("job", "machineType: P4000", "instance-type"),
    ("job", "instance-type: P4000", "resources: {instance-type"),
    ("job", "runs-on: ubuntu-latest", "instance-type"),
    ("job", "image: python:3.11", "below `with:`"),
    ("job", "script: ls", "below `with:`"),
    ("job", "container: python:3.11", "`with: {image: IMAGE}`"),
    ("job", "command: [ls]", "below `with:`"),
    ("job", "run: ls", "script@v1"),
    ("job", "commands: [ls]", "script@v1"),
    ("job", "timeout-minutes: 5", "`timeout`"),
    ("job", "secrets: [A]", "secret:NAME"),
    ("job", "working-directory: src", "cd FOLDER"),
    ("job", "when: always", "in the script"),
    ("job", "stage: test", "`needs`"),
    ("job", "retries: 3", "script"),
    ("job", "container-registries: [x]", "container-registries"),
    ("job", "defaults: {env: {}}", "top of the file"),
    ("script@v1", "run: ls", "`script`"),
    ("script@v1", "command: ls", "`script`"),
    ("script@v1", "docker_image: x", "`image`"),
    ("script@v1", "container: x", "`image`"),
    ("script@v1", "env: {A: b}", "out of `with`"),
    ("script@v1", "needs: [a]", "out of `with`"),
    ("script@v1", "outputs: {a: {type: volume}}", "out of `with`"),
    ("script@v1", "resources: {instance-type: C5}", "out of `with`"),
    ("script@v1", "username: me", "container-registries"),
    ("script@v1", "registry: ghcr.io", "container-registries"),
    ("script@v1", "credentials: {username: a}", "container-registries"),
    ("script@v1", "registryPassword: secret:A", "container-registries"),
    ("container@v1", "docker-credentials: {a: b}", "container-registries"),
    ("script@v1", "args: [--epochs, 3]", "behind the command in `script`"),
    ("script@v1", "imagePullSecrets: [a]", "container-registries"),
    ("script@v1", "workdir: /x", "cd FOLDER"),
    ("script@v1", "machineType: C5", "instance-type"),
    ("container@v1", "entrypoint: bash", "`command`"),
    ("container@v1", "arguments: [a]", "`args`"),
    ("container@v1", "script: ls", "`command`"),
    ("container@v1", "auth: {user: me}", "container-registries"),
    ("container@v1", "dockerfile: Dockerfile", "build the image"),
    ("container@v1", "build_args: [a]", "build the image"),
    ("container@v1", "ports: ['80:80']", "no ports"),
    ("git-checkout@v1", "branch: main", "`ref`"),
    ("git-checkout@v1", "commit: abc", "`ref`"),
    ("git-checkout@v1", "repository: user/x", "`url`"),
    ("git-checkout@v1", "token: secret:T", "`password`"),
    ("git-checkout@v1", "github_token: secret:T", "`password`"),
    ("git-checkout@v1", "directory: x", "`path`"),
    ("git-checkout@v1", "fetch-depth: 0", "remove it"),
    ("s3-download@v1", "bucket: x", "`url`"),
    ("s3-download@v1", "aws_access_key_id: A", "`access-key`"),
    ("s3-download@v1", "aws_secret_access_key: secret:A", "`secret-access-key`"),
    ("s3-download@v1", "endpoint_url: x", "`endpoint`"),
    ("create-model@v1", "model-name: x", "`name`"),
    ("create-model@v1", "modelType: Custom", "`type`"),
    ("create-model@v1", "model: a/b", "inputs: {model"),
    ("resources", "machineType: C5", "`instance-type`"),
    ("resources", "instance_type: C5", "`instance-type`"),
    ("resources", "gpu: 1", "`instance-type`"),
    ("resources", "memory: 4G", "`instance-type`"),
    ("root", "env: {A: b}", "`defaults:`"),
    ("root", "resources: {instance-type: C5}", "`defaults:`"),
    ("root", "stages: [a]", "`jobs`"),
    ("root", "tasks: {a: {}}", "`jobs`"),
    ("root", "version: '3'", "remove it"),
    ("root", "apiVersion: argoproj.io/v1alpha1", "Argo"),
    ("root", "kind: Workflow", "Argo"),
    ("root", "name: train", "remove it"),
    ("root", "triggers: [push]", "`on`"),
    ("root", "image: python", "below `jobs:"),
    ("root", "test: {uses: script@v1}", "below `jobs:`"),
    ("root", "secrets: {A: b}", "secret:NAME"),
    ("port", "ref: images", "below `with:`"),
    ("port", "id: images", "below `with:`"),
    ("port", "name: images", "`with: {ref: NAME}`"),
    ("port", "default: x", "with: {"),
    ("port", "path: /data", "/inputs/NAME"),
    ("values", "dataset: images", "`ref`"),
    ("values", "name: images", "`ref`"),
    ("values", "version: v1", "NAME:VERSION"),
]


@pytest.mark.parametrize(("place", "line", "advice"), KEYS)
def test_a_key_of_another_system_is_answered_with_the_one_that_does(
    place: str, line: str, advice: str, tmp_path: Path
) -> None:
    whole = "image: bash:5\n      script: ls"
    text = JOB.format(uses="script@v1", with_=whole)
    before = "    uses:"
    match place:
        case "root":
            text = f"{line}\n{text}"
        case "job":
            text = text.replace(before, f"    {line}\n{before}")
        case "resources":
            text = text.replace(before, f"    resources:\n      {line}\n{before}")
        case "port":
            port = f"    inputs:\n      data:\n        type: dataset\n        {line}\n{before}"
            text = text.replace(before, port)
        case "values":
            port = "    inputs:\n      data:\n        type: dataset\n        with:\n          "
            text = text.replace(before, f"{port}{line}\n{before}")
        case _:
            text = JOB.format(uses=place, with_=line)
    key = line.partition(":")[0]
    said = [each for each in found(tmp_path, text) if f"`{key}`" in each.message]
    said = [each for each in said if each.rule != "missing-port"]
    assert len(said) == 1, said
    assert advice in said[0].advice
    assert "known are" not in said[0].advice
    assert text.splitlines()[said[0].line - 1].strip() == line


SHAPES = [  # what is written below a key of the job, and what the advice names
    ("with:\n      image: bash:5\n      script:\n        - ls\n        - pwd", "script: |-"),
    ("with:\n      image: bash:5\n      script: [ls, pwd]", "script: |-"),
    ("with:\n      image: bash:5\n      script: {run: ls}", "script: |-"),
    ("with:\n      image: {name: bash}\n      script: ls", "image: NAME:TAG"),
    ("with:\n      - image: bash\n      - script: ls", "PARAMETER: value"),
    ("env:\n      - A=b\n      - C=d", 'NAME: "value"'),
    ("env:\n      - name: A\n        value: b", 'NAME: "value"'),
    ("env:\n      A: {valueFrom: {secretKeyRef: {name: x}}}", "secret:NAME"),
    ("inputs:\n      - data", "`NAME:` for each"),
    ("outputs:\n      - name: data", "`NAME:` for each"),
    ("outputs:\n      data:\n      type: volume", "deeper"),
    ("needs: clone", "needs: [JOB]"),
    ("resources: A4000", "{instance-type: A4000}"),
    ("timeout: 30m", "without a unit"),
    ("timeout: '30'", "without quotes"),
    ("outputs:\n      data: volume", "type: volume"),
]


@pytest.mark.parametrize(("written", "advice"), SHAPES)
def test_a_value_of_another_shape_is_answered_with_the_right_one(
    written: str, advice: str, tmp_path: Path
) -> None:
    base = "    uses: script@v1\n"
    if not written.startswith("with"):
        base += "    with: {image: bash:5, script: ls /outputs /inputs}\n"
    said = found(tmp_path, f"jobs:\n  train:\n    {written}\n{base}")
    assert any(advice in each.advice for each in said if each.severity == "error"), said


def test_keys_that_are_not_indented_below_their_job_are_told_so(tmp_path: Path) -> None:
    said = found(tmp_path, "jobs:\n  train:\n  uses: script@v1\n  with: {image: bash:5}\n")
    assert all("deeper" in each.advice for each in said[:2]), said
    said = found(tmp_path, "jobs:\n  train:\n    env: {A: b}\n  with: {image: bash:5}\n")
    assert "it is a key of the job above it" in said[1].advice
    said = found(tmp_path, "jobs:\n  - name: train\n    uses: script@v1\n")
    assert any("without dashes" in each.advice for each in said)


ACTIONS = [
    ("actions/checkout@v4", "git-checkout@v1"),
    ("checkout@v1", "git-checkout@v1"),
    ("git-clone@v1", "git-checkout@v1"),
    ("git-checkout@v2", "git-checkout@v1"),
    ("git-checkout", "git-checkout@v1"),
    ("script", "script@v1"),
    ("Script@v1", "script@v1"),
    ("script@1", "script@v1"),
    ("bash@v1", "script@v1"),
    ("run@v1", "script@v1"),
    ("python@v1", "script@v1"),
    ("docker://python:3.11", "container@v1"),
    ("docker@v1", "container@v1"),
    ("container@v3", "container@v1"),
    ("model-create@v1", "create-model@v1"),
    ("s3@v1", "s3-download@v1"),
    ("actions/upload-artifact@v4", "outputs"),
    ("actions/setup-python@v5", "image"),
    ("actions/cache@v4", "dataset"),
]


@pytest.mark.parametrize(("action", "advice"), ACTIONS)
def test_an_action_that_does_not_exist_is_answered_with_the_one_that_does(
    action: str, advice: str, tmp_path: Path
) -> None:
    said = found(tmp_path, JOB.format(uses=action, with_="x: y"))
    assert [advice in each.advice for each in said if each.rule == "unknown-action"] == [True]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        *(("folder", "`volume`"), ("directory", "`volume`"), ("file", "`string`")),
        *(("int", "`string`"), ("datasets", "`dataset`"), ("model", "`dataset`")),
    ],
)
def test_a_type_of_output_that_does_not_exist_is_answered(
    kind: str, advice: str, tmp_path: Path
) -> None:
    text = JOB.replace("    uses", f"    outputs: {{{{x: {{{{type: {kind}}}}}}}}}\n    uses")
    text = text.format(uses="script@v1", with_="image: bash:5\n      script: ls /outputs")
    (said,) = [each for each in found(tmp_path, text) if each.rule == "port-type"]
    assert advice in said.advice


# YAML that is broken: the line of the mistake, and what the advice names.
BROKEN = [
    ("jobs:\n  a:\n    uses: script@v1\n      script: ls\n", 4, "`with:` is missing"),
    ("jobs:\n  a:\n    uses: script@v1  # x\n      script: |-\n        ls\n", 4, "`with:`"),
    ("jobs:\n  a:\n    uses: 'script@v1'\n      image: bash\n", 4, "`with:` is missing"),
    (
        "jobs:\n  a:\n    outputs:\n      x:\n        type: dataset\n          ref: y\n",
        6,
        "`with:`",
    ),
    ("jobs:\n  a:\n    needs: x\n      uses: script@v1\n", 4, "as `needs`"),
    ("jobs:\n  a:\n    uses:script@v1\n    with: {}\n", 3, "`uses: ` with a space"),
]
HEREDOCS = [  # scripts whose lines from the third on lie at the file's left edge
    "cat > x.py <<EOF\nimport os\nprint(1)\nEOF",
    "cat > x.py <<'EOF'\nfor x in y:\n    print(x)\nEOF",
    'cat > x.yaml <<-"END"\nlr: 0.1\nepochs: 3\nEND',
    "python - <<PY\nwith open('x') as f:\n    pass\nPY",
    'python -c "\nimport x\nprint(1)"',
    "echo 1\n# echo 2",
]


@pytest.mark.parametrize(("text", "line", "advice"), BROKEN)
def test_broken_yaml_is_told_where_the_mistake_is_and_what_is_missing(
    text: str, line: int, advice: str, tmp_path: Path
) -> None:
    (said,) = found(tmp_path, text)
    assert (said.rule, said.line) == ("syntax", line)
    assert advice in said.advice


@pytest.mark.parametrize("script", HEREDOCS)
@pytest.mark.parametrize("more", ["        echo end\n", "        echo end\n      image: bash:5\n"])
def test_a_heredoc_at_the_left_edge_is_named_as_what_ends_the_script(
    script: str, more: str, tmp_path: Path
) -> None:
    text = "jobs:\n  a:\n    uses: script@v1\n    with:\n      script: |-\n        set -e\n        "
    (said,) = found(tmp_path, f"{text}{script}\n{more}")
    assert said.line == 8
    assert "ends the text of `script`, which begins in line 5" in said.message
    assert "8 spaces" in said.advice


FINE = [  # scripts that work at the service, and env
    "python /inputs/repo/train.py",
    "cd /inputs/repo && python train.py --out result",
    "cp -R /inputs/repo /code && cd /code && ./run.sh",
    "docker-entrypoint train",
    "mkdir -p /output /input && cp -R /inputs/data /input/data && train --in /input --out /output",
    "ls /kaggle/input ./input s3://bucket/output $HOME/input {a,b}/output",
    "echo hello | tee /outputs/id; ./x",
    "set -o pipefail; ./x | tee /outputs/id",
    "./x | tee /outputs/model/log.txt",
    "./x > /outputs/id; cat /inputs/note",
    "./x > /outputs/model/log.txt 2>&1",
    "mkdir -p /outputs/model/best && cp x /outputs/model; ./x",
    "grep x /inputs/data/a | sort > /tmp/x; echo 1 > /outputs/id; ./x",
    "cat > ci.yaml <<'EOF'\nrun: ${{ secrets.KEY }} $GITHUB_SHA\nEOF\n./x",
    "echo '${{ github.sha }}' | ./x",
    "docker ps --format '{{.ID}}' --filter {{x}}; ./x '{{ inputs.name }}'",
    "cat > t.j2 <<'EOF'\n{{ inputs.name }} ${env.X}\nEOF\n./x",
    "echo ${GITHUB_SHA:-none} $GITHUB_MIRROR $CI; GITHUB_REF=1; echo $GITHUB_REF; ./x",
    "export SHA=0123456789abcdef0123456789abcdef01234567; ./x $SHA",
    'export WANDB_API_KEY="$KEY" HF_TOKEN=$(cat /inputs/note); ./x --token "$HF_TOKEN"',
    "./x --token-file x --max-tokens 512 --pad_token '<pad>' --key=name --password-env PW",
    "python -c 'model.login(token=os.environ[\"HF_TOKEN\"])'",
    'python -c \'tokenizer.pad_token = "endoftext_token_1"; api_key = os.getenv("API_KEY_NAME")\'',
    'curl -H "Authorization: Bearer $TOKEN" -u $USER:$PASS https://example.com; ./x',
    "git clone https://$USER:$TOKEN@github.com/user/x; git clone git@github.com:user/x; ./x/run",
    "huggingface-cli login --token $HF_TOKEN; wandb login $WANDB_API_KEY; ./x",
    "./x --config configs/a1B2c3D4e5F6g7H8i9J0.yaml --run-id a1B2c3D4e5F6g7H8i9J0",
]


@pytest.mark.parametrize("script", FINE)
def test_a_script_that_works_has_no_finding(script: str, tmp_path: Path) -> None:
    assert in_script(tmp_path, script) == []


@pytest.mark.parametrize(
    "machine",
    [
        *("C1", "C3", "C6", "C8", "C9", "C10", "V100-32G", "GPU+", "P4000x2", "RTX5000x4"),
        *("V100-32Gx4", "A100x8", "A100-80Gx2", "A4000x4", "M4000", "H100x8", "GPU+x2"),
    ],
)
def test_a_documented_machine_is_known(machine: str, tmp_path: Path) -> None:
    text = JOB.replace("    uses", f"    resources: {{{{instance-type: {machine}}}}}\n    uses")
    assert found(tmp_path, text.format(uses="container@v1", with_="image: bash:5")) == []


def test_a_cluster_of_ones_own_has_its_own_machines(tmp_path: Path) -> None:
    text = JOB.replace("    uses", "    resources: {{instance-type: big-one}}\n    uses")
    text = text.format(uses="container@v1", with_="image: bash:5")
    assert rules(found(tmp_path, text)) == ["unknown-machine"]
    assert found(tmp_path, f"defaults: {{clusterId: clabc}}\n{text}") == []


@pytest.mark.parametrize("uses", ["script@v1", "container@v1"])
def test_a_documented_parameter_is_known(uses: str, tmp_path: Path) -> None:
    more = "\n      script: ls" if uses == "script@v1" else ""
    with_ = f"image: registry.example.com/a/b:1\n      containerRegistry: My-Registry{more}"
    assert found(tmp_path, JOB.format(uses=uses, with_=with_)) == []


SPOKEN = [  # scripts, what is found in them, what the advice names
    ("python x.py /input/data", "path-spelling", "/inputs/NAME"),
    ("python x.py --out=/output/model", "path-spelling", "/outputs/NAME"),
    ('cp "/Inputs/data" /tmp; ./x', "path-spelling", "/inputs/NAME"),
    ("ls /OUTPUTS; ./x", "path-spelling", "/outputs/NAME"),
    ("python x.py | tee /outputs/id", "pipe-hides-failure", "pipefail"),
    ("missing | tee -a /outputs/id", "pipe-hides-failure", "pipefail"),
    ("curl https://example.com | jq .id > /outputs/id", "pipe-hides-failure", "pipefail"),
    ("A=1 ./x 2>&1 | tail -1 > '/outputs/id'", "pipe-hides-failure", "pipefail"),
    ("echo 1 > /outputs/id/x", "file-or-folder", "volume"),
    ("mkdir -p /outputs/id", "file-or-folder", "volume"),
    ("cat /inputs/note/note.txt", "file-or-folder", "file itself"),
    ("cd /inputs/note; ./x", "file-or-folder", "file itself"),
    ("./x > /outputs/model", "file-or-folder", "/outputs/model/FILE"),
    ("./x >> '/outputs/cache'", "file-or-folder", "/outputs/cache/FILE"),
    ("./x | tee /outputs/model", "file-or-folder", "/outputs/model/FILE"),
    ("./x ${{ secrets.KEY }}", "github-expression", "secret:NAME"),
    ("./x ${{secrets.KEY}}", "github-expression", "secret:NAME"),
    ("./x ${{ env.EPOCHS }}", "github-expression", "$NAME"),
    ("./x ${{ github.event.head_commit.id }}", "github-expression", "context.event.github.ref"),
    ("./x ${{ matrix.lr }}", "github-expression", "a job for each"),
    ("./x ${{ needs.clone.outputs.id }}", "github-expression", "JOB.outputs.NAME"),
    ("./x ${{ steps.a.outputs.b }}", "github-expression", "/outputs/NAME"),
    ("./x ${{ inputs.lr || '0.1' }}", "github-expression", "workflow.inputs.NAME"),
    ("./x ${{ runner.temp }}", "github-expression", "nothing of the kind"),
    ("./x {{ secrets.KEY }}", "foreign-expression", "secret:NAME"),
    ("./x ${secrets.KEY}", "foreign-expression", "secret:NAME"),
    ('./x "{{workflow.parameters.lr}}"', "foreign-expression", "workflow.inputs.NAME"),
    ("./x {{inputs.parameters.lr}}", "foreign-expression", "workflow.inputs.NAME"),
    ("./x ${vars.EPOCHS}", "foreign-expression", "write the value"),
    ("cd $GITHUB_WORKSPACE; ./x", "foreign-variable", "`env`"),
    ('echo "a=b" >> "$GITHUB_OUTPUT"; ./x', "foreign-variable", "`env`"),
    ("./x ${CI_COMMIT_SHA}", "foreign-variable", "`env`"),
    ("./x --in /inputs/clone/x", "undeclared-path", "/inputs/repo"),
    ("./x --in /outputs/data", "undeclared-path", "write /inputs/data"),
    ("./x --in /inputs/model", "undeclared-path", "write /outputs/model"),
    ("python train.py", "unused-input", "cd /inputs/repo"),
    ("pip install -U x\npython3 src/train.py --epochs 3", "unused-input", "cd /inputs/repo"),
    ("echo secret:kaggle_key; ./x", "secret-not-whole", "`env`"),
    ("./x --token secret:hf-token", "secret-not-whole", "`env`"),
]


@pytest.mark.parametrize(("script", "rule", "advice"), SPOKEN)
def test_a_script_that_cannot_mean_what_it_says_is_spoken_of(
    script: str, rule: str, advice: str, tmp_path: Path
) -> None:
    said = [each for each in in_script(tmp_path, script) if each.rule == rule]
    assert len(said) == 1
    assert advice in said[0].advice
    assert said[0].line >= 24 or rule == "unused-input"


def test_a_path_in_a_variable_that_the_script_uses_counts_too(tmp_path: Path) -> None:
    said = in_script(tmp_path, "./x $DATA", "DATA: /inputs/images")
    assert rules(said) == ["undeclared-path"]
    assert in_script(tmp_path, "./x", "DATA: /inputs/images") == []
    assert in_script(tmp_path, "./x $DATA", "DATA: /inputs/data") == []


HEX = "0123456789abcdef0123456789abcdef"
MIXED = "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9v"
IN_CLEAR = [  # scripts with a key, token or password
    f'export KAGGLE_KEY="{HEX}"',
    f"KAGGLE_KEY={HEX} python x.py",
    f"export AWS_SECRET_ACCESS_KEY='{MIXED}'",
    f"export CLEARML_API_ACCESS_KEY={MIXED}",
    "export DB_PASSWORD=hunter2!",
    "export MYSQL_PWD=hunter2!",
    f'echo \'{{"username":"me","key":"{HEX}"}}\' > ~/.kaggle/kaggle.json',
    f"wandb login {HEX}01234567",
    f"wandb login --relogin {HEX}01234567",
    "huggingface-cli login --token hf_" + "aB3d" * 9,
    f"python x.py --api-key {MIXED}",
    f"python x.py --api_key={MIXED}",
    "python x.py --password 'correct-horse-1'",
    f'curl -H "Authorization: Bearer {MIXED}" https://example.com',
    "curl -u me:hunter2hunter2 https://example.com",
    f"python -c 'login(token=\"{MIXED}\")'",
    f"python - <<EOF\nimport os\nos.environ['WANDB_API_KEY'] = '{HEX}'\nEOF",
    "git clone https://me:hunter2@github.com/user/x",
    f"git clone https://{MIXED}@github.com/user/x",
    "aws configure set aws_access_key_id AKIA" + "ABCDEFGH12345678",
    "echo '-----BEGIN RSA PRIVATE KEY-----' > key",
]


@pytest.mark.parametrize("script", IN_CLEAR)
def test_a_key_in_a_script_is_found_by_whatever_name_and_not_shown(
    script: str, tmp_path: Path
) -> None:
    said = [each for each in in_script(tmp_path, f"set -e\n{script}\n./x") if "secret" in each.rule]
    assert rules(said) == ["secret-in-clear"]
    assert said[0].line > 24
    for part in (HEX, MIXED, "hunter2", "correct-horse"):
        assert part not in str(said[0])


IN_ENV = [
    ("KAGGLE_KEY", HEX, "secret-in-clear"),
    ("KAGGLE_KEY", "sort_by_name", ""),
    ("DB_PASS", "hunter2", "secret-in-clear"),
    ("GITHUB_PAT", MIXED, "secret-in-clear"),
    ("WANDB", HEX + "01234567", "possible-secret"),
    ("anything", MIXED, "possible-secret"),
    ("API_TOKEN", "your-token-here", ""),
    ("API_TOKEN", "<token>", ""),
    ("GIT_COMMIT", HEX + "01234567", ""),
    ("DATA_MD5", HEX, ""),
    ("WANDB_RUN_ID", MIXED, ""),
    ("MODEL_NAME", "meta-llama/Llama-3.1-8B-Instruct", ""),
    ("PYTHONPATH", "/inputs/repo/src:/inputs/repo", ""),
    ("CUDA_HOME", "/usr/local/cuda-12.1", ""),
    ("START_TOKEN", "abcdef", ""),
    ("PASS_COUNT", "123456", ""),
    ("PUBLIC_KEY_FILE", "key.pem", ""),
    ("SORT_KEY", "created_at", ""),
]


@pytest.mark.parametrize(("name", "value", "rule"), IN_ENV)
def test_a_key_in_a_variable_is_found_by_its_looks(
    name: str, value: str, rule: str, tmp_path: Path
) -> None:
    said = in_script(tmp_path, "./x", f'{name}: "{value}"')
    assert rules(said) == [rule] * bool(rule)
    assert all(value not in str(each) for each in said)


CHECKOUT = """\
"on": {{github: {{branches: {{only: main}}}}}}
jobs:
  clone:
    outputs: {{repo: {{type: volume}}}}
    uses: git-checkout@v1
    with: {{url: "{url}", ref: "{ref}"}}
"""
URLS = [  # a url, and what the advice names; nothing for one that works
    ("https://github.com/user/x/tree/dev", "`url: https://github.com/user/x` and `ref: dev`"),
    ("https://github.com/user/x/blob/main/a.py", "`ref: main`"),
    ("https://github.com/user/x/pull/5", "`url: https://github.com/user/x`"),
    ("https://github.com/user/x/archive/main.zip", "`url: https://github.com/user/x`"),
    ("https://www.github.com/user/x/issues", "github.com/user/x"),
    ("https://github.com/user", "OWNER/REPOSITORY"),
    ("https://gitlab.com/group/sub/x/-/tree/dev", "`ref: dev`"),
    ("https://bitbucket.org/user/x/src/main/", "`ref: main`"),
    ("https://huggingface.co/user/x/tree/main", "`ref: main`"),
    ("https://raw.githubusercontent.com/user/x/main/a.py", "OWNER/REPOSITORY"),
    ("github.com/user/x", "`https://github.com/user/x`"),
    ("user/x", "`https://github.com/user/x`"),
    ("https://github.com/user/x", ""),
    ("https://github.com/user/x.git", ""),
    ("https://github.com/user/x/", ""),
    ("https://gitlab.com/group/sub/tree/x", ""),
    ("https://huggingface.co/datasets/user/x", ""),
    ("https://git.example.com/a/b/c/tree/d", ""),
    ("git@github.com:user/x.git", ""),
    ("ssh://git@github.com/user/x.git", ""),
    ("context.event.github.url", ""),
]


@pytest.mark.parametrize(("url", "advice"), URLS)
def test_a_web_page_is_no_repository(url: str, advice: str, tmp_path: Path) -> None:
    said = found(tmp_path, CHECKOUT.format(url=url, ref="v1"))
    assert rules(said) == ["repository-url"] * bool(advice)
    assert all(advice in each.advice for each in said)


@pytest.mark.parametrize(
    ("url", "ref", "errors"),
    [
        ("context.event.github.ur", "v1", 1),
        ("context.github.url", "context.event.github.sha", 2),
        ("Context.event.github.url", "v1", 1),
        ("github.event.repository.clone_url", "github.ref", 2),
        ("event.github.url", "event.github.ref", 2),
        ("${context.event.github.repo}", "v1", 1),
        ("context.event.github.url", "context.event.github.ref", 0),
        ("https://github.com/user/x", "release-1.2", 0),
        ("https://github.com/user/x", "github-pages", 0),
    ],
)
def test_a_context_that_does_not_exist_is_an_error(
    url: str, ref: str, errors: int, tmp_path: Path
) -> None:
    said = found(tmp_path, CHECKOUT.format(url=url, ref=ref))
    assert rules(said) == ["unknown-context"] * errors
    assert all("context.event.github." in each.advice for each in said)


@pytest.mark.parametrize(
    ("image", "right"),
    [
        *((image, True) for image in ("bash", "bash:5", "a/b:1.0-x_y", "a.example:5000/b/c:v1")),
        *((image, True) for image in ("ghcr.io/user/x@sha256:" + "0a" * 32, "a__b/c--d", "X/y:Z")),
        ("nvcr.io/nvidia/pytorch:23.10-py3", True),
        *(
            (image, False)
            for image in ("user/Image:1", "https://hub.docker.com/r/a/b", "./Dockerfile")
        ),
        *((image, False) for image in ("a b", "$IMAGE", "a:b:c", "a/b:", "-a", "Dockerfile")),
    ],
)
def test_an_image_has_a_name_that_a_registry_takes(image: str, right: bool, tmp_path: Path) -> None:
    said = found(tmp_path, JOB.format(uses="container@v1", with_=f'image: "{image}"'))
    assert rules(said) == ["image-name"] * (not right)


def test_a_branch_that_the_repository_lacks_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / ".gradient" / "workflows"
    folder.mkdir(parents=True)
    path = folder / "train.yaml"

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def said(trigger: str) -> list[str]:
        text = JOB.format(uses="container@v1", with_="image: bash:5")
        path.write_text(f'"on": {{github: {{branches: {{{trigger}}}}}}}\n{text}')
        return [f"{each.rule} {each.line}: {each.advice}" for each in check(path)]

    assert said("only: main") == []  # no repository, no finding
    git("init", "-b", "main")
    assert said("only: master") == ["unknown-branch 1: its branches are `main`"]
    git("commit", "--allow-empty", "-m", "x")
    git("branch", "feature/x")
    assert said("only: main") == said("only: feature/x") == said("include: ['release/*']") == []
    assert said("include: [main, dev]") == [
        "unknown-branch 1: its branches are `feature/x`, `main`"
    ]
    (tmp_path / ".git" / "shallow").write_text("0" * 40 + "\n")  # as a checkout of one branch has
    assert said("only: dev") == []


def test_a_string_that_a_failed_pipeline_left_empty_is_told_with_the_way_out(
    project: Project,
) -> None:
    text = """\
        jobs:
          measure:
            outputs: {id: {type: string}}
            uses: script@v1
            with: {image: bash:5, script: "SET missing-program | tee /outputs/id"}
        """
    project.workflow(text.replace("SET ", ""))
    output = project.ok("run", "train", "--engine", "paths")
    assert "warning: the string /outputs/id is empty" in output
    assert "`set -o pipefail`" in output
    project.workflow(text.replace("SET ", "set -o pipefail; "))
    assert "missing-program" in project.fails(1, "run", "train", "--engine", "paths")


@pytest.mark.parametrize(
    ("reference", "right"),
    [
        *((each, "clone.outputs.repo") for each in ("clone.output.repo", "clone.repo", "clone")),
        *((each, "clone.outputs.repo") for each in ("jobs.clone.outputs.repo", "outputs.repo")),
        *((each, "clone.outputs.repo") for each in ("needs.clone.outputs.repo", "/outputs/repo")),
        *((each, "clone.outputs.repo") for each in ("clone/outputs/repo", "$clone.outputs.repo")),
        *(
            (each, "workflow.inputs.rate")
            for each in ("inputs.rate", "workflow.input.rate", "rate")
        ),
    ],
)
def test_a_reference_in_another_form_is_answered_with_the_right_one(
    reference: str, right: str, tmp_path: Path
) -> None:
    text = f"""\
inputs: {{rate: {{type: string, with: {{value: x}}}}}}
jobs:
  clone:
    outputs: {{repo: {{type: volume}}}}
    uses: git-checkout@v1
    with: {{url: "https://github.com/user/x"}}
  train:
    needs: [clone]
    inputs:
      x: "{reference}"
    uses: script@v1
    with: {{image: bash:5, script: ls /inputs}}
"""
    (said,) = found(tmp_path, text)
    assert (said.severity, said.line, said.advice) == ("error", 10, f"write `{right}`")


FILLED = [  # a checkout's outputs, its path, and what the advice names
    ("repo: {type: volume}", "/outputs/repo", ""),
    ("repo: {type: volume}", "/outputs/repo/a/b", ""),
    ("repo: {type: volume}, id: {type: string}", "", ""),
    ("repo: {type: volume}", "repo", "/outputs/repo"),
    ("repo: {type: volume}", "/repo", "/outputs/repo"),
    ("repo: {type: volume}", "/outputs", "/outputs/repo"),
    ("repo: {type: volume}", "/outputs/repo/../../x", "/outputs/repo"),
    ("a: {type: volume}, id: {type: string}", "/outputs/id", "/outputs/a"),
    ("id: {type: string}", "", "a volume"),
    ("a: {type: volume}, b: {type: volume}", "", "/outputs/a"),
]


@pytest.mark.parametrize(("outputs", "path", "advice"), FILLED)
def test_what_an_action_fills_has_to_be_a_folder_of_its_job(
    outputs: str, path: str, advice: str, tmp_path: Path
) -> None:
    text = f"""\
jobs:
  clone:
    outputs: {{{outputs}}}
    uses: git-checkout@v1
    with: {{url: "https://github.com/user/x"{f", path: {path}" * bool(path)}}}
"""
    said = found(tmp_path, text)
    assert rules(said) == ["output-path"] * bool(advice)
    assert all(advice in each.advice for each in said)


@pytest.mark.parametrize(
    "url", ["https://b.s3.amazonaws.com/x", "b/x", "gs://b/x", "s3:/b", "s3://"]
)
def test_a_download_is_from_a_bucket(url: str, tmp_path: Path) -> None:
    text = f"""\
jobs:
  load:
    outputs: {{data: {{type: volume}}}}
    uses: s3-download@v1
    with: {{url: "{url}", access-key: A, secret-access-key: secret:S}}
"""
    assert rules(found(tmp_path, text)) == ["s3-url"]
    assert found(tmp_path, text.replace(url, "s3://b/x")) == []


@pytest.mark.parametrize(
    "value", ["secrets:HF", "Secret:HF", "SECRET:HF", "secrets.HF", "secret.HF"]
)
def test_a_secret_in_another_spelling_is_answered(value: str, tmp_path: Path) -> None:
    (said,) = in_script(tmp_path, "./x", f"HF: {value}")
    assert (said.rule, said.advice) == ("secret-not-whole", "write `secret:HF`")


def test_a_dataset_of_the_same_run_is_a_warning_for_it_fails_only_once(tmp_path: Path) -> None:
    text = """\
jobs:
  make:
    outputs: {data: {type: dataset, with: {ref: images}}}
    uses: script@v1
    with: {image: bash:5, script: ./make /outputs/data}
  train:
    needs: [make]
    inputs: {data: {type: dataset, with: {ref: images}}}
    uses: script@v1
    with: {image: bash:5, script: ./train /inputs/data}
"""
    (said,) = found(tmp_path, text)
    assert (said.rule, said.severity, said.line) == ("dataset-of-same-run", "warning", 8)
