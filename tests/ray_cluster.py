"""A real Ray cluster of several nodes on this machine: each has a raylet and workers of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: Nothing goes outside, and a node that died is noticed within two seconds, not thirty.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "0"}
_SYSTEM = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


class RayCluster:
    """Attributes: ``nodes`` but for the head, where the driver is."""

    def __init__(self, nodes: int, cpus: int = 2) -> None:
        os.environ.update(SETTINGS)
        # Workers inherit it: they import the stages of the tests.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 80 * 2**20, "num_cpus": cpus}
        self.cluster: Any = Cluster(
            initialize_head=True, head_node_args={**small, "include_dashboard": False, "_system_config": _SYSTEM}
        )
        self.nodes = [self.cluster.add_node(**small, resources={f"node{number}": 100}) for number in range(1, nodes)]
        self.address = self.cluster.address

    def connect(self, **options: Any) -> None:
        import ray

        ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **options)

    @property
    def raylets(self) -> list[int]:
        """Process ids of the nodes' raylets; the workers are their children."""
        every = [self.cluster.head_node, *self.nodes]
        return [node.all_processes["raylet"][0].process.pid for node in every]

    def kill(self, number: int) -> None:
        """SIGKILL for a node's raylet, as if the machine had gone."""
        self.cluster.remove_node(self.nodes[number - 1], allow_graceful=False)

    def stop(self) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()
