"""What ties a token's choices together: latent topics.

A token has a *topic* in every layer, one of a few, and a topic has its own loads in every layer.
Given its topic, a token draws its experts as `workloads.sampling` does, with exact marginals and
under the model's group limits. So

- experts a topic likes are chosen together (co-activation);
- a topic that lasts from layer to layer ties layers together (affinity);
- domains and phases prefer some topics, sequences have a topic of their own (home), and topics
  come and go with time (drift).

The loads of the topics are the loads of the layer, disturbed by independent normal numbers and
scaled so that each topic's sum to 1 and their mean over topics, weighted by how common topics
are, is the loads of the layer again: whatever the topics, the expected loads are those asked for
(with drift, over whole halves of a turn and with an even number of topics to a domain). It is the
latent-class model of P. F. Lazarsfeld (1950) with a Markov chain along the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TOPICS = 512
MAX_STRENGTH = 20.0
MAX_LENGTH = 1 << 31
_ROUNDS = 400
_CLOSE = 1e-12


@dataclass(frozen=True, slots=True)
class Topics:
    """Parameters of the topics; the defaults tie nothing together.

    Attributes
    ----------
    count
        How many topics; at least two for every domain.
    strength
        Standard deviation of the log loads of a topic around those of the layer, before scaling.
    affinity
        Probability that a token keeps its topic at the next layer; else it draws anew.
    home
        Probability that a token draws the topic of its sequence instead of any.
    seq_len
        Tokens of a sequence.
    domains
        Names of the kinds of traffic and their shares of the sequences; empty for one kind.
    domain_separation
        How much domains differ: 0 not at all, at 1 none uses a topic of another.
    decode_share
        Share of a sequence's tokens, the last ones, that are decoded; None for no phases.
    phase_separation
        How much prefill and decode differ: 0 not at all, at 1 they share no topic.
    drift
        How far topics come and go: half of them are ``1 + drift * cos(2 pi t / drift_tokens)``
        times as common at token t, the others ``1 - ...``.
    drift_tokens
        Tokens of a full turn; after half of it, topics have changed places.
    """

    count: int = 1
    strength: float = 0.0
    affinity: float = 0.0
    home: float = 0.0
    seq_len: int = 1024
    domains: tuple[tuple[str, float], ...] = ()
    domain_separation: float = 0.0
    decode_share: float | None = None
    phase_separation: float = 0.0
    drift: float = 0.0
    drift_tokens: int = 1 << 20

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        object.__setattr__(self, "domains", tuple((n, float(s)) for n, s in self.domains))
        _check("count", self.count, 1, MAX_TOPICS)
        _check("strength", self.strength, 0, MAX_STRENGTH)
        _check("seq_len", self.seq_len, 1, MAX_LENGTH)
        _check("drift_tokens", self.drift_tokens, 1, MAX_LENGTH)
        for name in ("affinity", "home", "domain_separation", "phase_separation", "drift"):
            _check(name, getattr(self, name), 0, 1)
        if self.decode_share is not None:
            _check("decode_share", self.decode_share, 0, 1)
        names = [name for name, _ in self.domains]
        if len(set(names)) < len(names) or not all(names):
            raise WorkloadError(f"topics: domains {names}, expected different names")
        shares = [share for _, share in self.domains]
        if shares and not (min(shares) > 0 and abs(sum(shares) - 1) < 1e-6):
            raise WorkloadError(f"topics: domain shares {shares}, expected above 0, summing to 1")
        if self.count < 2 * len(self.domains):
            raise WorkloadError(
                f"topics: {self.count} for {len(self.domains)} domains, expected two for each"
            )

    @property
    def prefill_tokens(self) -> int:
        """Tokens of a sequence before decoding begins."""
        return round(self.seq_len * (1.0 - (self.decode_share or 0.0)))

    def shares(self) -> NDArray[np.float64]:
        """float64 [domains]: shares of the sequences."""
        return np.array([share for _, share in self.domains] or [1.0])

    def chances(self) -> NDArray[np.float64]:
        """float64 [domains, 2, topics]: chance of a topic in a domain and phase, without drift."""
        domains = max(1, len(self.domains))
        topic = np.arange(self.count)
        owned = topic % domains == np.arange(domains)[:, None]
        chance = (1.0 - self.domain_separation) / self.count + self.domain_separation * (
            owned / owned.sum(axis=1, keepdims=True)
        )
        turned = np.array([1.0, -1.0])[:, None] * self.phase_separation * self.sides()
        both = chance[:, None, :] * (1.0 + turned)
        chances: NDArray[np.float64] = both / both.sum(axis=2, keepdims=True)
        return chances

    def sides(self) -> NDArray[np.float64]:
        """float64 [topics], 1 or -1, in turn within a domain: how phase and drift move a topic."""
        place = np.arange(self.count) // max(1, len(self.domains))
        return np.where(place % 2 == 0, 1.0, -1.0)

    def common(self) -> NDArray[np.float64]:
        """float64 [topics]: share of the tokens with each topic, without drift."""
        decode = 1.0 - self.prefill_tokens / self.seq_len
        phases = np.array([1.0 - decode, decode])
        weights = self.shares()[:, None, None] * phases[:, None]
        common: NDArray[np.float64] = (weights * self.chances()).sum(axis=(0, 1))
        return common


def topic_loads(
    load: NDArray[np.float64],
    topics: Topics,
    rng: np.random.Generator,
    *,
    cap: float,
) -> NDArray[np.float64]:
    """Draw the loads of every topic, float64 [topics, layers, experts], rows summing to 1.

    Iterative proportional fitting (Deming and Stephan, 1940): the disturbed loads are scaled by
    experts, so that their mean over topics is `load`, and by topics, so that they sum to 1, in
    turn, and kept below `cap`.

    Parameters
    ----------
    load
        float64 [layers, experts], every row summing to 1.
    topics
        How many, how common, how strong.
    rng
        Source of the disturbance.
    cap
        Most that a load may be, above all of `load`.
    """
    common = topics.common()[:, None, None]
    shape = (topics.count, *load.shape)
    loads = load * np.exp(topics.strength * rng.standard_normal(shape))
    for _ in range(_ROUNDS):
        mean = (common * loads).sum(axis=0)
        if np.abs(mean - load).max() < _CLOSE:
            break
        loads *= np.divide(load, mean, out=np.zeros_like(load), where=mean > 0)
        _fill(loads, cap)
    return loads


def _fill(loads: NDArray[np.float64], cap: float) -> None:
    """Scale rows to sum to 1 with no entry above `cap`, in place."""
    loads /= loads.sum(axis=2, keepdims=True)
    while (loads > cap * (1 + _CLOSE)).any():
        np.minimum(loads, cap, out=loads)
        short = 1.0 - loads.sum(axis=2, keepdims=True)
        free = np.where(loads < cap, loads, 0.0)
        room = free.sum(axis=2, keepdims=True)
        loads += free * np.divide(short, room, out=np.zeros_like(short), where=room > 0)
        if not (room > 0).any():
            break


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise WorkloadError(f"topics: {name} is {value}, expected {least:g}..{most:g}")
