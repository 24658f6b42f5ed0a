"""`gradlab export NAME --to argo`: what is written, and what is refused before."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gradlab.check.rules.argo import RULES_OF_MANIFESTS
from gradlab.remote.argo.export import written
from gradlab.remote.argo.manifest import Export, manifest
from gradlab.remote.argo.storage import Storage
from gradlab.remote.argo.table import Row
from gradlab.run import plan
from gradlab.spec.reader import read
from gradlab.spec.spec import parse

from ..services.gitserver import git
from ..workflow.conftest import Project
from .conftest import TABLE, WORKFLOW, commit
from .manifests import refused

CLAIM = ("--claim", "shared", "--input", "rate.of.it=0.1")


def export(project: Project, *options: str, **env: str) -> Any:
    """Export a workflow; give its manifest, which Argo's schema, hera and check must take."""
    text = project.ok("export", "train", "--to", "argo", *options, **env)
    data = yaml.safe_load(text)
    assert refused(data) == []
    path = project.root.with_name("manifest.yaml")
    path.write_text(text)
    assert "0 errors, 0 warnings" in project.ok("check", str(path))
    return data


def refuse(project: Project, *options: str) -> str:
    return project.fails(2, "export", "train", "--to", "argo", *options)


def templates(data: Any) -> dict[str, Any]:
    return {each["name"]: each for each in data["spec"]["templates"]}


def env(container: Any) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def key(name: str, **more: bool) -> dict[str, Any]:
    return {"secretKeyRef": {"name": "gradlab", "key": name, **more}}


def test_each_job_is_a_pod_that_waits_for_those_that_it_needs(project: Project) -> None:
    data = export(project, *CLAIM)
    found = templates(data)
    graph = found.pop(data["spec"]["entrypoint"])
    assert list(found) == ["checkout", "job-3d", "rated", "last"]
    assert {task["name"]: task.get("depends") for task in graph["dag"]["tasks"]} == {
        "checkout": None,
        "job-3d": "checkout",
        "rated": "checkout",
        "last": "job-3d && rated",
    }
    images = {name: each["container"]["image"] for name, each in found.items()}
    first, second = "nowhere.invalid/bash:5", "bash:4"
    assert images == {"checkout": first, "job-3d": first, "rated": second, "last": first}
    assert all(f"--only {name.removeprefix('job-')} " in str(found[name]) for name in found)


def test_what_an_instance_type_is_stands_in_the_table(project: Project) -> None:
    found = templates(export(project, *CLAIM))
    gpu = found["job-3d"]
    assert gpu["nodeSelector"] == {
        "node.kubernetes.io/instance-type": "g4dn.xlarge",
        "gpu": "true",
    }
    assert gpu["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert gpu["container"]["resources"] == {
        "requests": {"cpu": "4", "memory": "14Gi"},
        "limits": {"nvidia.com/gpu": "1"},
    }
    for name in ("checkout", "rated", "last"):
        assert not {"nodeSelector", "tolerations"} & found[name].keys()
        assert "resources" not in found[name]["container"]


def test_secrets_go_by_reference_to_those_who_need_them(project: Project) -> None:
    values = {"HUB_TOKEN": "a-very-secret-value", "other-one": "another-secret-value"}
    options = (*CLAIM, "--token", "git-token")
    data = export(project, *options, **values)
    assert not [value for value in values.values() if value in str(data)]
    found = templates(data)
    both = {"HUB_TOKEN": key("HUB_TOKEN"), "OTHER_ONE": key("other-one")}
    for name in ("job-3d", "last"):  # what needs a job asks for what that asks for
        assert both.items() <= env(found[name]["container"]).items()
    for name in ("checkout", "rated"):
        assert not both.keys() & env(found[name]["container"]).keys()
    for name in found.keys() - {data["spec"]["entrypoint"]}:
        (clone,) = found[name]["initContainers"]
        assert env(clone)["GIT_TOKEN"] == key("git-token")
        assert "GIT_TOKEN" not in env(found[name]["container"])


def test_the_code_is_a_commit_and_inputs_are_parameters(project: Project) -> None:
    head = git(project.root, "rev-parse", "HEAD").strip()
    data = export(project, "--claim", "shared")
    assert data["spec"]["arguments"]["parameters"] == [
        {"name": "repository", "value": "https://example.org/ann/demo.git"},
        {"name": "commit", "value": head},
        {"name": "data", "value": "digits"},
        {"name": "rate-of-it"},
    ]
    args = templates(data)["last"]["container"]["args"]
    assert args[2:] == ["--input", "rate.of.it={{workflow.parameters.rate-of-it}}"]
    given = export(project, *CLAIM, "--input", "data=digits:v3")["spec"]["arguments"]
    assert [each["value"] for each in given["parameters"][2:]] == ["digits:v3", "0.1"]


def test_a_bucket_alone_has_its_checkouts_made_by_each_pod_one_after_the_other(
    project: Project,
) -> None:
    data = export(project, "--storage", "s3://bucket/folder")
    found = templates(data)
    graph = found.pop(data["spec"]["entrypoint"])
    waits = {task["name"]: task.get("depends", "") for task in graph["dag"]["tasks"]}
    assert waits["rated"].startswith("checkout && (job-3d.Succeeded || job-3d.Failed")
    script = found["last"]["container"]["command"][2]
    first, last = re.findall(r"--only (\S+)", script)
    assert (first, last) == ("checkout", "last")
    assert '.whl)\n"$python" -m pip' in script and '"${kit[0]}[s3]"' in script
    own = env(found["last"]["container"])
    assert own["GRADLAB_STORAGE"] == "s3://bucket/folder"
    assert own["AWS_SECRET_ACCESS_KEY"] == key("AWS_SECRET_ACCESS_KEY", optional=True)
    both = templates(export(project, "--storage", "s3://bucket/folder", "--claim", "shared"))
    assert "--only checkout" not in both["last"]["container"]["command"][2]
    own = env(both["last"]["container"])
    assert (own["GRADLAB_STORAGE"], own["GRADLAB_SCRATCH"]) == (
        "s3://bucket/folder",
        "/gradlab/storage",
    )


APART = """
jobs:
  checkout:
    uses: git-checkout@v1
    with: {url: context.event.github.url}
    outputs: {repo: {type: volume}}
  one:
    needs: [checkout]
    inputs: {repo: checkout.outputs.repo}
    outputs: {out: {type: dataset, with: {ref: one}}}
    uses: script@v1
    with: {image: bash:5, script: "cp /inputs/repo/code /outputs/out"}
  two:
    needs: [checkout, one]
    inputs: {repo: checkout.outputs.repo, one: one.outputs.out}
    outputs: {out: {type: dataset, with: {ref: two}}}
    uses: script@v1
    with: {image: bash:5, script: "cat /inputs/repo/code /inputs/one/code > /outputs/out/code"}
"""


def test_pods_with_disks_of_their_own_do_one_run_by_what_the_manifest_says(
    project: Project, tmp_path: Path
) -> None:
    project.workflow(APART)
    (project.root / "code").write_text("v1\n")
    commit(project)
    found = templates(export(project, "--storage", "s3://bucket/folder"))
    # A storage on which nothing is worked on stands for the bucket, a folder for each pod's disk.
    apart = {"GRADLAB_STORAGE_SLOW": "1"}
    for number, name in enumerate(("checkout", "one", "two", "one")):
        script = found[name]["container"]["command"][2]
        for job in re.findall(r"--only (\S+)", script):
            own = apart | {"GRADLAB_SCRATCH": str(tmp_path / f"disk-{number}")}
            options = ("--only", job, "--run-id", "an-id", "--engine", "paths")
            project.ok("run", "train", *options, **own)
    (version,) = project.versions("two")
    assert next(version.rglob("code")).read_text() == "v1\nv1\n"
    assert len(project.versions("one")) == 1


def test_two_workflows_of_one_name_wait_for_each_other(project: Project) -> None:
    (mutex,) = export(project, *CLAIM)["spec"]["synchronization"]["mutexes"]
    project.workflow(WORKFLOW, "other")
    commit(project)
    text = project.ok("export", "other", "--to", "argo", *CLAIM)
    assert yaml.safe_load(text)["spec"]["synchronization"]["mutexes"] != [mutex]


def test_the_manifest_is_put_into_a_file_and_is_the_same_each_time(project: Project) -> None:
    path = project.root.with_name("out.yaml")
    said = project.run("export", "train", "--to", "argo", *CLAIM, "--output", str(path))
    assert f"kubectl create -f {path}" in said.stderr and not said.stdout
    assert path.read_text() == project.ok("export", "train", "--to", "argo", *CLAIM)
    assert "the volume claim shared" in path.read_text()
    bad = refuse(project, *CLAIM, "--output", str(project.root / "no" / "such"))
    assert "can't be written: No such file or directory" in bad


def test_what_is_not_pushed_or_not_committed_is_told(project: Project) -> None:
    (project.root / "pyproject.toml").write_text('[project]\nname = "demo"\nversion = "1"\n')
    said = project.run("export", "train", "--to", "argo", *CLAIM).stderr
    assert "on no branch of a remote" in said and "not committed: pods get none" in said


def without(project: Project, *arguments: str) -> Project:
    git(project.root, *arguments)
    return project


def test_what_pods_could_not_clone_is_refused(project: Project) -> None:
    git(project.root, "remote", "set-url", "origin", "/somewhere/demo.git")
    assert "'/somewhere/demo.git' is not one that pods can clone" in refuse(project, *CLAIM)
    address = ("--repository", "https://ann:not-for-anyone@example.org/ann/demo.git")
    data = export(project, *CLAIM, *address)
    assert "not-for-anyone" not in str(data)
    git(project.root, "remote", "remove", "origin")
    assert "there is no `origin`: give one by --repository" in refuse(project, *CLAIM)
    git(project.root, "rm", "--quiet", "--cached", "vendor/*.whl")
    assert "git knows of no vendor/gradlab-*.whl" in refuse(project, *CLAIM)
    (project.root / ".git").rename(project.root / "no.git")
    assert "is in no git repository" in refuse(project, *CLAIM)


def test_a_storage_that_outlives_the_pods_has_to_be_given(untracked: Project) -> None:
    assert "need a storage that outlives them: --claim NAME" in refuse(untracked)
    for url in ("/a/folder", "sftp://host/a", "s3://user:secret@host/a", "s3://"):
        assert "pods can use URLs that begin with s3://" in refuse(untracked, "--storage", url)
    assert "the name of a claim has small letters" in refuse(untracked, "--claim", "My_Claim")


REFUSED_WORKFLOWS = {
    "makes a volume, which": """
        a: {uses: script@v1, outputs: {x: {type: volume}}, with: {image: b, script: ls}}""",
    "names no image, nor does": """
        a: {uses: create-model@v1, inputs: {model: {type: dataset, with: {ref: m}}},
            outputs: {i: {type: string}}, with: {name: m, type: Custom}}""",
    "runs its image's own program": """
        a: {uses: container@v1, with: {image: b}}""",
    "which would both be the variable MY_KEY": """
        a: {uses: script@v1, env: {A: "secret:my-key", B: "secret:MY_KEY"},
            with: {image: b, script: ls}}""",
}


@pytest.mark.parametrize("said", REFUSED_WORKFLOWS)
def test_what_a_pod_could_not_do_is_refused_with_its_place(untracked: Project, said: str) -> None:
    untracked.workflow(f"jobs:{REFUSED_WORKFLOWS[said]}")
    output = refuse(untracked, "--storage", "s3://bucket/a")
    assert said in output and "train.yaml:2: job 'a'" in output


BAD_TABLES = {
    "P4000: [1]": "1:1: error [argo] `P4000` has to be a mapping",
    "P4000: {nodeselector: {}}": "1:9: error [argo] there is no key `nodeselector`; did you",
    "P4000: {nodeSelector: {a b: c}}": "`a b` can't be the label of a node",
    "P4000: {nodeSelector: {a: {b: c}}}": "what stands here is not the value of a label",
    "P4000: {nodeSelector: {a: -b}}": "`-b` is not the value of a label",
    "P4000: {resources: {limits: {memory: 16GB}}}": "`16GB` is not a quantity, such as 4, 500m",
    "P4000: {resources: {limits: {memory: 1:30}}}": "`1:30` is not a quantity",
    "P4000: {resources: {request: {cpu: 1}}}": "no key `request`; did you mean `requests`",
    "P4000: {resources: {requests: {nvidia.com/gpu: 1}}}": "requested without a limit, which Kub",
    "P4000: {tolerations: {key: a}}": "tolerations are a list; write [{key:",
    "P4000: {tolerations: [{key: a, effect: Never}]}": "`Never` is not `NoSchedule`, `PreferNoS",
    "P4000: {tolerations: [{key: a, operator: Exists, value: b}]}": "`Exists` takes no value",
    "P4000: {tolerations: [{value: b}]}": "a toleration without a key tolerates all",
    "P4000: {tolerations: [{key: a, tolerationSeconds: 1h}]}": "`1h` is not a number of seconds",
    "- P4000": "the file holds no mapping at its top",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_a_table_that_can_not_be_taken_is_named_with_its_place(
    untracked: Project, text: str
) -> None:
    (untracked.root / "argo.yaml").write_text(text)
    output = refuse(untracked, *CLAIM)
    assert BAD_TABLES[text] in output and "argo.yaml:1:" in output


def test_a_row_that_is_missing_is_named_with_the_line_to_add(project: Project) -> None:
    (project.root / "argo.yaml").write_text(TABLE.replace("P4000", "A100"))
    output = refuse(project, *CLAIM)
    assert "train.yaml:10: job '3d' runs on 'P4000'" in output
    assert "argo.yaml does not say" in output and "\nP4000: {nodeSelector: " in output
    line = re.search(r"^P4000: .*", output, re.M)
    assert line
    (project.root / "argo.yaml").write_text(line[0].replace("LABEL", "a").replace("VALUE", "b"))
    export(project, *CLAIM)
    (project.root / "argo.yaml").unlink()
    assert "argo.yaml to say" in refuse(project, *CLAIM)


def test_an_input_that_there_is_not_or_that_argo_would_replace_is_refused(
    untracked: Project,
) -> None:
    assert "has no input 'x'" in refuse(untracked, *CLAIM, "--input", "x=1")
    assert "write NAME=VALUE" in refuse(untracked, *CLAIM, "--input", "data")
    assert "which Argo would replace" in refuse(untracked, *CLAIM, "--input", "data={{x}}")


# What neither Argo's schema nor hera sees, planted in an export; and where it is.
PLANTED: dict[str, tuple[str, str, str]] = {
    "argo-retry-policy": ("retryPolicy: Always", "retryPolicy: always", "did you mean `Always`?"),
    "argo-retry-limit": ("      limit: '50'\n", "", "tried for ever"),
    "argo-retry-graph": (
        "  - name: workflow\n    dag:",
        "  - name: workflow\n    retryStrategy: {limit: '2'}\n    dag:",
        "done again as a whole",
    ),
    "argo-depends": ("depends: job-3d && rated", "depends: job-3d && rate", "which is no task"),
    "argo-cycle": (
        "      - name: checkout\n",
        "      - name: checkout\n        depends: last\n",
        "",
    ),
    "argo-template": ("entrypoint: workflow", "entrypoint: start", "no template `start`"),
    "argo-volume": ("- name: shm\n        mountPath", "- name: shn\n        mountPath", "`shm`?"),
    "argo-quantity": ("memory: 14Gi", "memory: 14GB", "`14GB` is no quantity of memory"),
    "argo-kind": ("    nodeSelector:", "    script: {image: a, source: b}\n    nodeSelector:", ""),
    "argo-name": ("- name: last\n        template", "- name: 3d\n        template", "begins with"),
    "argo-parameter": ("- name: data\n", "- name: dates\n", "has no parameter `data`"),
}


def test_a_mistake_that_schema_and_hera_let_pass_is_found_where_it_is(project: Project) -> None:
    text = project.ok("export", "train", "--to", "argo", *CLAIM)
    paths = []
    for name, (old, new, _) in PLANTED.items():
        assert old in text, name
        paths.append(project.root.with_name(f"{name}.yaml"))
        paths[-1].write_text(text.replace(old, new, 1))
        assert refused(yaml.safe_load(paths[-1].read_text())) == [], name
    output = project.fails(1, "check", *map(str, paths))
    for path, (name, (old, _, said)) in zip(paths, PLANTED.items(), strict=True):
        (found,) = (each for each in output.splitlines() if each.startswith(str(path)))
        assert f": error [{name}] " in found and said in found, found
        line = int(found.removeprefix(str(path)).split(":")[1])
        planted = text[: text.index(old)].count("\n") + 1
        assert name in ELSEWHERE or abs(line - planted) <= 3, found


# A cycle is told at its first task, a parameter where it is used first.
ELSEWHERE = ("argo-cycle", "argo-parameter")


def test_a_mistake_is_planted_for_each_rule() -> None:
    assert PLANTED.keys() == RULES_OF_MANIFESTS.keys()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(string.ascii_letters, max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "spec",
                        "templates",
                        "dag",
                        "tasks",
                        "steps",
                        "name",
                        "container",
                        "volumes",
                        "depends",
                        "dependencies",
                        "resources",
                        "limits",
                        "retryStrategy",
                        "entrypoint",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=30,
    )
)
@example(spec={"templates": [], "entrypoint": "main"})
def test_any_shape_of_a_manifest_can_be_checked(
    tmp_path_factory: pytest.TempPathFactory, spec: Any
) -> None:
    from gradlab.check.check import check

    path = tmp_path_factory.mktemp("any") / "manifest.yaml"
    path.write_text(yaml.safe_dump({"apiVersion": "argoproj.io/v1alpha1", "spec": spec}))
    assert all(each.rule.startswith("argo-") or each.severity for each in check(path))


NAMES = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12).filter(
    lambda name: not name.startswith("-")
)


@given(st.data())
def test_any_graph_of_jobs_becomes_a_workflow_that_argo_takes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = data.draw(st.lists(NAMES, min_size=1, max_size=8, unique=True))
    jobs = {
        name: {
            "uses": "script@v1",
            "with": {"image": "bash:5", "script": "true"},
            "needs": data.draw(st.lists(st.sampled_from(names[:number]), unique=True))
            if number
            else [],
        }
        for number, name in enumerate(names)
    }
    folder = tmp_path_factory.mktemp("graph")
    made = made_of(folder, jobs)
    assert refused(made) == []
    graph = next(each for each in made["spec"]["templates"] if "dag" in each)
    of = {task["template"]: task for task in graph["dag"]["tasks"]}
    called = {each["name"]: only(each) for each in made["spec"]["templates"] if "container" in each}
    assert sorted(called.values()) == sorted(names)
    for template, name in called.items():
        waits = [called[each] for each in of[template].get("depends", "").split(" && ") if each]
        assert sorted(waits) == sorted(jobs[name]["needs"])


def test_the_graph_has_a_name_of_its_own(tmp_path: Path) -> None:
    job = {"uses": "script@v1", "with": {"image": "bash:5", "script": "true"}}
    made = made_of(tmp_path, {"workflow": job, "3": job, "job-3": job})
    assert refused(made) == []
    names = [each["name"] for each in made["spec"]["templates"]]
    assert sorted(names) == ["job-3", "job-3-2", "workflow", "workflow-2"]
    assert made["spec"]["entrypoint"] == "workflow-2"


def only(template: Any) -> str:
    (found,) = re.findall(r"--only (\S+)", template["container"]["command"][2])
    return str(found)


def made_of(folder: Path, jobs: dict[str, Any]) -> Any:
    """Export jobs, without a project around them."""
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({"jobs": jobs}))
    spec = parse(read(path))
    selected = plan.select(spec, None)
    storage = Storage("", "shared", "demo")
    code = {"repository": "https://example.org/a.git", "commit": "main", "folder": ""}
    text = written(
        manifest(
            Export(
                spec=spec,
                jobs=selected,
                rows={name: Row() for name in jobs},
                images=dict.fromkeys(jobs, "bash:5"),
                checkouts={name: [] for name in jobs},
                storage=storage,
                secret="gradlab",
                token="",
                given={},
                service_account="",
                retries=3,
                **code,
            )
        )
    )
    return yaml.safe_load(text)
