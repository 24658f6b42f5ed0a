"""What befalls jobs on a cluster."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from .cluster import Cluster, until


def where(cluster: Cluster) -> str:
    """Name the node on which a job runs, the last where it has all of them, "" for none."""
    node = next((node for _, _, state, node in cluster.queue() if state == "RUNNING"), "")
    return cluster.nodes[-1] if "[" in node else node


def preempted(cluster: Cluster) -> None:
    """Have a job of a higher priority take both nodes for a moment."""
    cluster.ask("sbatch", "-phigh", "-N2", "-n2", "-c2", "-o/dev/null", "--wrap=sleep 0.5")


def requeued(cluster: Cluster) -> None:
    """Requeue the jobs, as an administrator may."""
    for id, _, state, _ in cluster.queue():
        if state == "RUNNING":
            cluster.ask("scontrol", "requeue", id)


def lost(cluster: Cluster) -> None:
    """Lose the node on which a job runs; it comes back later."""
    if node := where(cluster):
        cluster.lose(node)
        cluster.start_node_again(node)


def restarted(cluster: Cluster) -> None:
    """End the controller, and start it again."""
    cluster.end("slurmctld", signal.SIGTERM)
    time.sleep(1)
    cluster.start_controller()
    until(cluster.queue, "the controller", 40)


WAYS: dict[str, Callable[[Cluster], None]] = {
    "preempted": preempted,
    "requeued": requeued,
    "lost": lost,
    "restarted": restarted,
}
