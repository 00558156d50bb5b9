"""Upper bounds of what a run may ask for: beyond them a number is a slip, not a plan."""

from __future__ import annotations

MAX_TOKENS = 100_000_000
"""Of a profile or a judged trace."""
MAX_LAYER_SLOTS = 1 << 16
"""Experts of one layer on a server: as many as a layer may have."""
MAX_SERVER_SLOTS = 1 << 24
"""Experts on a server, over all layers."""
MAX_CHUNK_BYTES = 1 << 30
MAX_GPU = (1 << 22) - 1
"""Number of a GPU."""
MIN_SPEED = 1e-9
"""Share of its bandwidth that a slow link is left with."""
MAX_STEPS = 1_000_000
"""Of the fluid network, in a collective."""
MAX_TP = 1 << 16
MAX_MICRO_BATCHES = 64
MAX_WORKERS = 256
MAX_NEW_TOKENS = 1 << 20
"""Tokens generated for a prompt."""
MAX_BATCH = 1 << 16
"""Prompts that go through a model together."""
MAX_SEED = (1 << 63) - 1
MIN_FLOPS, MAX_FLOPS = 1e6, 1e21
"""Operations per second of a GPU: a millionth of a TFLOP/s to a million times today's."""
MAX_BETA = 1e6
MAX_MOVES = 1 << 40
"""Experts of all layers that change their server."""
MAX_REDUNDANT = 1 << 16
"""Redundant slots of a layer."""
MAX_GB = 1e6
"""Memory of a GPU, in units of 1e9 bytes."""
MAX_BYTES_PER_PARAMETER = 64.0
MAX_SECONDS = 1e7
"""Wall seconds a policy may take: some months."""
MAX_PRICE = 1e12
"""Hops (or copies) for a move, a byte or a load above a cap."""
MAX_FLATTEN = 8.0
"""Power of an expert's load that tokens are weighed down by."""
MAX_Z = 1e3
"""Standard deviations over domains."""
MAX_HOPS = 1e6
"""Per token and layer, of figures typed in."""

MAX_RANKS = 1 << 17
"""GPUs of an engine's map."""
MAX_SERVERS = 16_384
"""Servers of a cluster to place on: the distances between them fill a square array."""
