"""s3-download@v1, against a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Project

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
server = pytest.importorskip("moto.server", reason="moto's server is not installed")

WORKFLOW = """
    jobs:
      fetch:
        outputs: {{data: {{type: volume}}}}
        uses: s3-download@v1
        with:
          url: {url}
          endpoint: {endpoint}
          access-key: me
          secret-access-key: secret:S3_KEY
      list:
        needs: [fetch]
        inputs: {{data: fetch.outputs.data}}
        uses: script@v1
        with:
          image: bash:5
          script: cd /inputs/data && find . -type f | sort | xargs tail -n +1
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Give the address of a server with a bucket."""
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    address = "http://{}:{}".format(*moto.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id="me",
        aws_secret_access_key="s3-k3y",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="bucket")
    for key in ("data/a", "data/sub/b", "database/c", "data/sub/", "evil/../../escaped"):
        client.put_object(Bucket="bucket", Key=key, Body=f"content of {key}\n".encode())
    yield address
    moto.stop()


@pytest.mark.parametrize("url", ["s3://bucket/data/", "s3://bucket/data"])
def test_what_lies_below_a_prefix_is_downloaded(project: Project, endpoint: str, url: str) -> None:
    project.workflow(WORKFLOW.format(url=url, endpoint=endpoint))
    output = project.ok("run", "train", S3_KEY="s3-k3y")
    assert "[list] content of data/a\n" in output and "[list] ==> ./sub/b <==\n" in output
    assert "database" not in output and "s3-k3y" not in output


def test_a_single_object_is_downloaded_by_its_name(project: Project, endpoint: str) -> None:
    project.workflow(WORKFLOW.format(url="s3://bucket/data/sub/b", endpoint=endpoint))
    assert "[list] content of data/sub/b\n" in project.ok("run", "train", S3_KEY="s3-k3y")


def test_what_is_wrong_is_said_in_one_line(project: Project, endpoint: str) -> None:
    for url, message in {
        "s3://bucket/nothing/": "there is nothing at s3://bucket/nothing",
        "s3://nowhere/": "The specified bucket does not exist",
        "s3://bucket/evil": "would be written outside of the output",
    }.items():
        project.workflow(WORKFLOW.format(url=url, endpoint=endpoint))
        assert message in project.fails(1, "run", "train", S3_KEY="s3-k3y"), url
