"""From a trace, a placement and an attention to messages between GPUs."""

from sim.messages.counts import distinct_destinations, expert_tokens
from sim.messages.exchange import Exchange, exchange, per_expert, stream_exchange
from sim.messages.rules import REPLICA_RULES, DispatchRules
from sim.messages.sizes import MODES, DispatchMode, MessageSizes
from sim.messages.traffic import Traffic

__all__ = [
    "MODES",
    "REPLICA_RULES",
    "DispatchMode",
    "DispatchRules",
    "Exchange",
    "MessageSizes",
    "Traffic",
    "distinct_destinations",
    "exchange",
    "expert_tokens",
    "per_expert",
    "stream_exchange",
]
