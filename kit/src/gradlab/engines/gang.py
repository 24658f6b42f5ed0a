"""`torchrun` in a job that has several machines: the same command, started on each of them.

The first machine runs the job's script. Its `torchrun` has Slurm start one agent on each machine,
which reads the same job's folder on the shared storage. Promises: one that is lost, or whose agent
fails, ends all of them, so that they begin anew as a whole; a signal reaches each agent.
"""

from __future__ import annotations

import os
import shlex
import socket

NODES = "SLURM_NNODES"
WANTED = "GRADLAB_GANG"  # set by who starts a job that may have several machines
PORTS = (20_000, 20_000)  # the first, and how many of them are used
SCRIPT = """\
{exports}
exec srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --overlap --kill-on-bad-exit=1 \
  --export=ALL /bin/sh -c 'exec {python} -m torch.distributed.run --nnodes={nodes} \
  --node-rank="$SLURM_NODEID" --master-addr={host} --master-port={port} "$@"' torchrun "$@"
"""


def torchrun(python: str) -> str:
    """Give the lines of a job's `torchrun`, none where the job has one machine."""
    nodes = os.environ.get(NODES, "1")
    if WANTED not in os.environ or nodes == "1":
        return ""
    given = {name: value for name, value in os.environ.items() if _is_slurms(name)}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(given.items())]
    first, count = PORTS
    port = first + int(os.environ.get("SLURM_JOB_ID", "0")) % count
    return SCRIPT.format(
        exports="\n".join(exports),
        nodes=nodes,
        python=python,
        host=shlex.quote(socket.gethostname()),
        port=port,
    )


def _is_slurms(name: str) -> bool:
    # Of the batch step: it would give the new step this one's place, and its processors.
    own = ("SLURM_CPU_BIND", "SLURM_CPUS_PER_TASK", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_STEP")
    return name.startswith(("SLURM_", "SLURMD_", "MUNGE_")) and not name.startswith(own)
