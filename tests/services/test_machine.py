"""What a process asks of the machine that it runs on."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.kit import KIT

FAULTS = """
import resource, sys
from gradlab.services import machine
if sys.argv[1] == "keep":
    machine.keep_freed_memory()
def step():
    blocks = [bytearray(4 << 20) for _ in range(8)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for it")
def test_memory_that_a_step_frees_is_there_for_the_next_one() -> None:
    anew, kept = faults("as it is"), faults("keep")
    assert kept < 0.2 * anew


def faults(how: str) -> int:
    """Count the pages that ten steps get from the system."""
    command = [sys.executable, "-c", FAULTS, how]
    environment = {"PYTHONPATH": str(KIT)}
    return int(subprocess.check_output(command, env=environment))
