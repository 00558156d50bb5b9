"""Synthetic workloads: loads as uneven as recorded ones, and choices as tied together."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from workloads._arrays import frozen
from workloads._waterfill import water_fill
from workloads.curve import LoadCurve
from workloads.errors import WorkloadError
from workloads.profile import ExpertProfile
from workloads.sampling import draw_trace, inclusion_probabilities
from workloads.streams import stream
from workloads.topic_sampling import TopicSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.model import MoEModel
    from workloads.topics import Topics
    from workloads.trace import RoutingTrace

MAX_INCLUSION = 0.95
"""Most of the tokens that one expert may serve: keeps k * load below 1 in small models."""


@dataclass(frozen=True, slots=True)
class Skew:
    """How uneven loads are; the defaults are fitted to DeepSeek-R1.

    The logarithms of a layer's loads are a mixture of two normal distributions, ordinary
    experts and a few hot ones, stretched by a factor of the layer. Fitted to the 58 MoE layers
    of the recording "decode, 1000 in, 1000 out" supplied with sgl-project/sglang issue 6017:
    its Gini coefficient (mean 0.348, single layers 0.23-0.50), max/mean (5.56), share of the
    hottest 32 of 256 (32.9 %), log-log slope of the hottest 128 (0.464), and the correlation of
    normal scores inside routing groups (0.34).

    Attributes
    ----------
    body_sigma
        Standard deviation of log load among ordinary experts.
    hot_fraction
        Fraction of the experts that are hot.
    hot_gain, hot_sigma
        Mean log load of the hot experts above the ordinary ones, and its standard deviation.
    layer_sigma
        Standard deviation of the logarithm of the layers' stretch factor.
    group_correlation
        Correlation of the experts of one routing group in the ranking of a layer, 0 to 1;
        without groups in the model it has no effect.
    """

    body_sigma: float = 0.5
    hot_fraction: float = 0.07
    hot_gain: float = 1.35
    hot_sigma: float = 0.3
    layer_sigma: float = 0.15
    group_correlation: float = 0.34

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("body_sigma", "hot_gain", "hot_sigma", "layer_sigma"):
            value = getattr(self, name)
            if not (0 <= value < np.inf):
                raise WorkloadError(f"skew: {name} is {value}, expected a finite number >= 0")
        for name in ("hot_fraction", "group_correlation"):
            if not 0 <= getattr(self, name) <= 1:
                raise WorkloadError(f"skew: {name} is {getattr(self, name)}, expected 0..1")


R1_LIKE = Skew()
"""The skew of the DeepSeek-R1 recording."""


def synthetic_load(
    model: MoEModel, rng: np.random.Generator, skew: Skew | LoadCurve = R1_LIKE
) -> NDArray[np.float64]:
    """Draw loads, float64 [layers, experts], every row summing to 1.

    Draws are stratified (a Latin hypercube over experts and layers), so that the means over
    layers scatter little between seeds while single layers differ as recorded ones do. Loads
    are capped so that no expert serves more than `MAX_INCLUSION` of the tokens; the excess goes
    to the layer's other experts in proportion.

    Parameters
    ----------
    model
        Gives layers, experts, k and the groups.
    rng
        Source of all randomness.
    skew
        How uneven the loads shall be.
    """
    log_load = (
        _curved(model, rng, skew) if isinstance(skew, LoadCurve) else _mixed(model, rng, skew)
    )
    log_load.sort(axis=1)
    ascending = np.exp(log_load - log_load[:, -1:])
    weights = np.empty_like(ascending)
    np.put_along_axis(weights, _ranking(model, rng, skew), ascending, axis=1)
    cap = _largest_load(model)
    return np.array([water_fill(row, 1.0, cap) for row in weights])


def _mixed(model: MoEModel, rng: np.random.Generator, skew: Skew) -> NDArray[np.float64]:
    """Return log loads of ordinary and of hot experts, float64 [layers, experts]."""
    layers, experts = model.layers, model.experts
    hot = round(skew.hot_fraction * experts)
    log_load = np.hstack(
        [
            skew.body_sigma * _normal_scores(rng, layers, experts - hot),
            skew.hot_gain + skew.hot_sigma * _normal_scores(rng, layers, hot),
        ]
    )
    stretched: NDArray[np.float64] = log_load * _stretch(rng, layers, skew.layer_sigma)
    return stretched


def _curved(model: MoEModel, rng: np.random.Generator, curve: LoadCurve) -> NDArray[np.float64]:
    """Return the curve as it comes out in every layer, float64 [layers, experts]."""
    log_loads, spread = curve.at(model.experts)
    log_load = log_loads + spread * _normal_scores(rng, model.layers, 1)
    # The mean of exp(sigma z) is exp(sigma^2 / 2).
    peak = curve.peak_sigma * _normal_scores(rng, model.layers, 1)[:, 0]
    log_load[:, -1] += peak - curve.peak_sigma**2 / 2
    return log_load


def _stretch(rng: np.random.Generator, layers: int, sigma: float) -> NDArray[np.float64]:
    """Return the layers' stretch factors, float64 [layers, 1]."""
    factors: NDArray[np.float64] = np.exp(sigma * _normal_scores(rng, layers, 1))
    return factors


def _normal_scores(rng: np.random.Generator, layers: int, count: int) -> NDArray[np.float64]:
    """Return stratified standard normal draws [layers, count].

    Column i lies in the i-th of `count` equally probable intervals, and the layers divide each
    interval evenly between them, in random order.
    """
    place = rng.permuted(np.tile(np.arange(layers)[:, None], (1, count)), axis=0)
    within = (place + rng.random((layers, count))) / layers
    quantiles = (np.arange(count) + within) / max(1, count)
    # The outermost floats 0 and 1 have no finite normal score.
    inside = np.clip(quantiles, 2.0**-53, 1.0 - 2.0**-53)
    inverse = NormalDist().inv_cdf
    return np.array([inverse(q) for q in inside.ravel().tolist()]).reshape(layers, count)


def _ranking(
    model: MoEModel, rng: np.random.Generator, skew: Skew | LoadCurve
) -> NDArray[np.int64]:
    """Return int64 [layers, experts]: the experts of every layer from coldest to hottest."""
    groups = model.n_group or model.experts
    shared = rng.standard_normal((model.layers, groups)).repeat(model.experts // groups, axis=1)
    own = rng.standard_normal((model.layers, model.experts))
    common = skew.group_correlation
    ranking: NDArray[np.int64] = np.argsort(
        np.sqrt(common) * shared + np.sqrt(1.0 - common) * own, axis=1, kind="stable"
    )
    return ranking


def _largest_load(model: MoEModel) -> float:
    """Return the cap on a load: below 1/k, yet above the mean, which leaves room in any model."""
    at_most = 1.0 / model.top_k
    mean = 1.0 / model.experts
    return max(MAX_INCLUSION * at_most, (at_most + mean) / 2)


@dataclass(frozen=True, slots=True)
class SyntheticWorkload:
    """Loads drawn from a seed, and the two traces that follow from them.

    Popularity, profile and judged trace are three independent streams of the seed. None depends
    on a policy or on how many tokens another takes, so that all policies are fitted on the same
    profile and meet the same tokens.

    Attributes
    ----------
    model
        The model that routes.
    seed
        Not negative.
    skew
        How uneven the loads are: by parameters, or by a curve fitted to a recording.
    topics
        What ties a token's choices together; None for independent ones.
    name
        Whose likeness it is, for captions; by default what the skew says.
    load
        float64 [layers, experts], read-only: the loads everything is drawn from.
    """

    model: MoEModel
    seed: int
    skew: Skew | LoadCurve = R1_LIKE
    topics: Topics | None = None
    name: str | None = None
    load: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    _sampler: TopicSampler | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Draw the loads, and those of the topics."""
        load = synthetic_load(self.model, stream(self.seed, "popularity"), self.skew)
        object.__setattr__(self, "load", frozen(load, np.float64))
        sampler = None
        if self.topics is not None:
            cap = (1.0 / self.model.top_k + _largest_load(self.model)) / 2
            rng = stream(self.seed, "topics")
            sampler = TopicSampler.of(self.load, self.model, self.topics, rng, cap=cap)
        object.__setattr__(self, "_sampler", sampler)

    @property
    def source(self) -> str:
        """What captions and manifests call this workload."""
        kind = self.name or ("R1-like" if self.skew == R1_LIKE else "own skew")
        return f"synthetic, {kind}, seed {self.seed}"

    @property
    def deviation(self) -> float:
        """Greatest ``|probability of an expert in a token - k * load|`` of the traces."""
        if self._sampler is not None:
            return self._sampler.deviation
        return inclusion_probabilities(self.load, self.model)[1]

    def sampled(self) -> tuple[Topics, NDArray[np.float64]]:
        """Return the topics, and the chance of an expert given each, [topics, layers, experts].

        Raises
        ------
        WorkloadError
            There are no topics.
        """
        if self.topics is None or self._sampler is None:
            raise WorkloadError(f"{self.source}: has no topics")
        return self.topics, self._sampler.included

    def profile(self, tokens: int) -> ExpertProfile:
        """Count a trace of `tokens` tokens of the profile stream, which is never judged."""
        return ExpertProfile.from_trace(self._draw("profile", tokens), keep_choices=True)

    def trace(self, tokens: int) -> RoutingTrace:
        """Return the first `tokens` tokens of the judged stream."""
        return self._draw("trace", tokens)

    def _draw(self, name: str, tokens: int) -> RoutingTrace:
        rng = stream(self.seed, name)
        if self._sampler is not None:
            return self._sampler.draw(tokens, rng, source=self.source)
        return draw_trace(self.load, self.model, tokens, rng, source=self.source)
