"""Traces drawn by topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workloads.errors import WorkloadError
from workloads.sampling import inclusion_probabilities, sequence_lengths, stages
from workloads.topics import Topics, topic_loads
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.model import MoEModel


@dataclass(frozen=True, slots=True, eq=False)
class TopicSampler:
    """Everything that a trace by topics is drawn from, beside random numbers.

    Attributes
    ----------
    model, topics
        Shape of the routing, and parameters of the topics.
    design
        As for `workloads._kernels.draw`, each with an axis of topics in front.
    included
        float64 [topics, layers, experts]: chance that a token with a topic chooses an expert.
    deviation
        Greatest difference, without drift, between an expert's chance of being drawn into a
        token and k times the loads asked for.
    """

    model: MoEModel
    topics: Topics
    design: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]
    included: NDArray[np.float64]
    deviation: float

    @classmethod
    def of(
        cls,
        load: NDArray[np.float64],
        model: MoEModel,
        topics: Topics,
        rng: np.random.Generator,
        *,
        cap: float,
    ) -> TopicSampler:
        """Draw the topics' loads and prepare to draw tokens.

        Parameters
        ----------
        load
            float64 [layers, experts], every row summing to 1.
        model, topics
            Shape of the routing, and parameters of the topics.
        rng
            Source of the topics' loads.
        cap
            Most that a load of a topic may be, above all of `load` and at most 1/k.
        """
        loads = topic_loads(load, topics, rng, cap=cap)
        parts = [stages(each, model) for each in loads]
        achieved = np.array([inclusion_probabilities(each, model)[0] for each in loads])
        mean = np.einsum("z,zle->le", topics.common(), achieved)
        design = (
            np.array([part.group_weight for part in parts]),
            np.array([part.groups_used for part in parts]),
            np.array([part.weight for part in parts]),
        )
        deviation = float(np.abs(mean - model.top_k * load).max())
        return cls(model, topics, design, achieved, deviation)

    def draw(self, tokens: int, rng: np.random.Generator, *, source: str) -> RoutingTrace:
        """Draw a trace; a longer one from the same generator state begins with the shorter one.

        Parameters
        ----------
        tokens
            Tokens to draw.
        rng
            Source of all choices.
        source
            Carried into the trace.

        Raises
        ------
        WorkloadError
            Fewer than one token.
        """
        from workloads._topics_kernel import draw_topics  # noqa: PLC0415  numba is slow to import

        if tokens < 1:
            raise WorkloadError(f"cannot draw {tokens} tokens, expected at least 1")
        topics = self.topics
        lengths = sequence_lengths(tokens, topics.seq_len)
        topk = np.empty((tokens, self.model.layers, self.model.top_k), dtype=np.uint16)
        domain = np.empty(len(lengths), dtype=np.uint16)
        draw_topics(
            rng,
            self.design,
            (topics.chances(), topics.sides(), topics.shares()),
            (topics.affinity, topics.home, topics.drift, float(topics.drift_tokens)),
            (topics.seq_len, topics.prefill_tokens),
            (topk, domain),
        )
        late = np.arange(tokens) % topics.seq_len >= topics.prefill_tokens
        return RoutingTrace(
            topk=topk,
            experts=self.model.experts,
            seq_lens=lengths,
            source=source,
            phase=None if topics.decode_share is None else late.astype(np.uint8),
            domain=domain if topics.domains else None,
            domain_names=tuple(name for name, _ in topics.domains),
        )
