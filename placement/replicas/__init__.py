"""Replication: how many replicas of which expert where, and which replica a token takes."""

from placement.replicas.problem import ReplicaProblem
from placement.replicas.replicated import Replicated, Replication
from placement.replicas.rules import RULES, ReplicaRule, evaluate_replicas, make_rule
from placement.replicas.slot_price import kv_tokens

__all__ = [
    "RULES",
    "ReplicaProblem",
    "ReplicaRule",
    "Replicated",
    "Replication",
    "evaluate_replicas",
    "kv_tokens",
    "make_rule",
]
