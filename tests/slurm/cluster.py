"""A real Slurm on this machine's loopback: munged, slurmctld and some slurmd, in one folder.

Without systemd, on free ports; nothing of /etc or /var is read or written. Partitions: `low` (the
default: preempted and requeued, 1 hour), `high` (preempts), `short` (1 minute).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..services.processes import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
GRACE = 10  # seconds between SIGTERM and SIGKILL at a preemption, a cancel and a limit
# cred_expire: a requeued job begins again after 6 seconds, not after 120.
CONFIGURATION = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={top}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool.%n
SlurmctldPidFile={top}/slurmctld.pid
SlurmdPidFile={top}/slurmd.%n.pid
SlurmctldLogFile={top}/slurmctld.log
SlurmdLogFile={top}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={top}/completed.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=200000,batch_sched_delay=0,\
defer_batch,requeue_setup_env_fail,preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={grace}
SlurmdTimeout=6
MessageTimeout=5
TCPTimeout=2
ReturnToService=2
MailProg=/bin/true
LaunchParameters=disable_send_gids
PlugStackConfig={top}/plugstack.conf
{nodes}
PartitionName=low   Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} \
MaxTime=60 DefaultTime=60
PartitionName=short Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} MaxTime=1 \
DefaultTime=1
PartitionName=high  Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=60 DefaultTime=60
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=8000"
)


def lacking() -> str:
    """Name a program of Slurm's that is not installed, or nothing."""
    return next((program for program in PROGRAMS if not shutil.which(program)), "")


class Cluster:
    """Some nodes on this machine; `env` is what a user's programs need to reach them."""

    def __init__(self, top: Path, nodes: int = 2, cpus: int = 2) -> None:
        self.top = top
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.env = {**os.environ, "SLURM_CONF": str(top / "slurm.conf")}
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self._configure(cpus)

    def _configure(self, cpus: int) -> None:
        ports, host = free_ports(1 + len(self.nodes)), socket.gethostname().partition(".")[0]
        nodes = [
            NODE.format(name=name, host=host, port=port, cpus=cpus)
            for name, port in zip(self.nodes, ports[1:], strict=True)
        ]
        user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
        for name in ("state", "munge"):
            (self.top / name).mkdir(mode=0o700)
        text = CONFIGURATION.format(
            host=host, user=user, port=ports[0], top=self.top, grace=GRACE, nodes="\n".join(nodes)
        )
        (self.top / "slurm.conf").write_text(text)
        (self.top / "plugstack.conf").touch()
        (self.top / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        key = self.top / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)

    def start(self) -> None:
        """Start all of it, and wait until all nodes are idle."""
        munge = self.top / "munge"
        options = {
            "socket": f"{munge}.socket",
            "key-file": f"{munge}.key",
            "log-file": munge / "log",
        }
        options |= {"pid-file": munge / "pid", "seed-file": munge / "seed", "num-threads": 2}
        flags = [f"--{name}={value}" for name, value in options.items()]
        self._start("munged", "munged", "--foreground", "--force", *flags)
        until((self.top / "munge.socket").exists, "munged")
        self.start_controller("-c")
        for name in self.nodes:
            self.start_node(name)

    def start_controller(self, *options: str) -> None:
        """Start the controller; without options with what it knew when it ended."""
        self._start("slurmctld", "slurmctld", "-D", *options)

    def start_node(self, name: str) -> None:
        """Start a node, or one again that was lost, and wait until it can be used."""
        self._start(name, "slurmd", "-D", "-N", name)
        until(lambda: self.state(name) in ("idle", "mixed", "allocated"), f"node {name}")

    def _start(self, name: str, *command: str) -> None:
        with open(self.top / f"{name}.out", "wb") as output:
            self.started[name] = subprocess.Popen(
                command,
                env={**self.env, "SLURM_HERE": str(self.top), "SLURM_HERE_NODE": name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a daemon; a controller that is killed forgets the jobs of the last seconds."""
        self.started[name].send_signal(number)
        self.started[name].wait()

    def ask(self, *command: str) -> str:
        """Run a command of Slurm's and give what it prints."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def state(self, name: str) -> str:
        return self.ask("sinfo", "-h", "-n", name, "-p", "low", "-o", "%T")

    def queue(self) -> list[tuple[str, str, str, str]]:
        """List the jobs that live: id, name, state and node."""
        lines = self.ask("squeue", "-h", "-o", "%i|%j|%T|%N").splitlines()
        return [tuple(line.split("|")) for line in lines]  # type: ignore[misc]

    def processes(self, node: str = "") -> tuple[list[int], list[int]]:
        """List the steps and the jobs' processes of a node, or of all."""
        steps, jobs = [], []
        here = set[str]()
        for path in self.top.glob(f"spool.{node or '*'}/*_*.*"):
            if match := re.search(r"_(\d+)\.\d+$", str(path)):
                here.add(match[1])
        for pid, env, title in _processes():
            if env.get("SLURM_CONF") != self.env["SLURM_CONF"]:
                continue
            # slurmstepd hides its environment's changes: it is known by its title.
            step = re.match(r"slurmstepd: \[(\d+)\.", title)
            if step and (not node or step[1] in here):
                steps.append(pid)
            elif (
                not step
                and "SLURM_JOB_ID" in env
                and env.get("SLURMD_NODENAME") in ([node] if node else self.nodes)
            ):
                jobs.append(pid)
        return steps, jobs

    def lose(self, node: str) -> None:
        """Kill a node's steps, then its jobs and its daemon: a machine that lost its power."""
        steps, jobs = self.processes(node)
        for pid in (*steps, *jobs):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end(node)
        # Slurm would notice by itself, after half a minute.
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def bring_back(self, node: str) -> None:
        """Start a node again that was lost."""
        self.start_node_again(node)

    def start_node_again(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node)
        end = time.monotonic() + 20
        while self.state(node) not in ("idle", "mixed", "allocated"):
            self.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
            assert time.monotonic() < end, f"{node} is {self.state(node)}"
            time.sleep(0.2)

    def clear(self) -> None:
        """End all jobs, so that the next test finds an empty cluster."""
        self.ask("scancel", "--full", "--signal=KILL", "--me")
        self.ask("scancel", "--me")
        until(lambda: not self.queue(), "the end of all jobs", 40)
        for name in self.nodes:
            if self.state(name) != "idle":
                self.ask("scontrol", "update", f"NodeName={name}", "State=RESUME")

    def stop(self) -> None:
        """End all of it."""
        with contextlib.suppress(Exception):
            self.clear()
        for name in (*self.nodes, "slurmctld"):
            if name in self.started:
                self.started[name].terminate()
        for name in (*self.nodes, "slurmctld"):
            if name in self.started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.started[name].wait(5)
        for pid in (*self.processes()[0], *self.processes()[1]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started.values():
            process.kill()
            process.wait()


def until(reached: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"{what} does not come"
        time.sleep(0.05)


def _processes() -> Iterator[tuple[int, dict[str, str], str]]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "environ").read_bytes().decode("utf-8", "replace").split("\0")
            env = dict(word.split("=", 1) for word in words if "=" in word)
            title = (path / "cmdline").read_bytes().decode("utf-8", "replace")
            yield int(path.name), env, title
