"""The vocabulary of autoscaling. Everything here is frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.errors import ConfigError

if TYPE_CHECKING:
    from mlaas.scheduler.types import Node, Resources

NODE_TYPE_LABEL = "ray.io/node-group"
"""Ray's own label of the node type that an autoscaler made a node of."""
NODE_ID_LABEL = "ray.io/node-id"
"""Ray's own label of a node's id, which is `Node.name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """A kind of node that the autoscaler can bring, as `available_node_types` of its configuration names it.

    Raises:
        ConfigError: an amount is negative or not finite.
    """

    name: str
    capacity: Resources
    labels: tuple[tuple[str, str], ...] = ()
    """As in the autoscaler's configuration; they tell one type from another, so no two types have the same."""
    max_nodes: int
    price_usd_per_hour: float = 0.0

    def __post_init__(self) -> None:
        if self.max_nodes < 0:
            raise ConfigError("bad_node_type", f"node type {self.name}: max_nodes is {self.max_nodes}; it is 0 or more")
        if not (math.isfinite(self.price_usd_per_hour) and self.price_usd_per_hour >= 0.0):
            text = f"node type {self.name}: price_usd_per_hour is {self.price_usd_per_hour}; it is finite, 0 or more"
            raise ConfigError("bad_node_type", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How far the cluster may grow. Nothing by default: machines that are there, and no others."""

    node_types: tuple[NodeType, ...] = ()
    max_usd_per_hour: float | None = None
    """Price of all nodes of these types together, those that are there included; None: no bound."""

    def type_of(self, node: Node) -> NodeType | None:
        """Return the type that a node is of; None for a machine that no autoscaler brought."""
        name = dict(node.labels).get(NODE_TYPE_LABEL)
        return next((each for each in self.node_types if each.name == name), None)
