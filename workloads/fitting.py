"""Synthetic workloads fitted to recorded ones, by their statistics.

What is fitted are the statistics of `WorkloadStatistics`, not the experts' names: which expert is
hot, and which are chosen together, is drawn anew. Loads give a `LoadCurve`; a trace gives `Topics`
too, one parameter after the other, each by the statistic it moves:

- how many topics, and how strong: `pair_excess` and `pair_top_share`, on drawn traces;
- affinity: `affinity_excess`, on drawn traces;
- separation of domains and of phases: their correlations, from the topics' loads;
- home: `design_effect`, in closed form (`home_share`);
- drift: `drift_ends`, on drawn traces, where it exceeds what steady topics give: there the
  difference of two windows is all noise, and scatters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from workloads.curve import LoadCurve, fit_curve
from workloads.synthetic import SyntheticWorkload
from workloads.topics import MAX_STRENGTH, Topics
from workloads.trace_counts import PAIR_TOKENS, count_trace
from workloads.trace_statistics import WorkloadStatistics, correlations, trace_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workloads.model import MoEModel
    from workloads.trace_counts import TraceCounts

COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of topics that are tried, of every domain."""
FIT_EXPERTS = 1024
"""Experts, of all layers together, of the traces that are drawn to fit: layers of a workload are
alike, and so many of them, whatever the model's, that figures scatter little between seeds."""
_TRIES = 9
_POINTS = 256
_DRIFT_SEEDS = 2
_DRIFT_CLOSE = 0.03


def fit_trace(
    counts: TraceCounts, figures: WorkloadStatistics, model: MoEModel, *, seed: int = 0
) -> tuple[LoadCurve, Topics]:
    """Fit a synthetic workload to a trace.

    Parameters
    ----------
    counts, figures
        Of the trace.
    model
        The model that routed.
    seed
        Of the traces that are drawn on the way.
    """
    curve = fit_curve(counts.counts.astype(np.float64), model)
    trial = _Trial(_shortened(model), curve, seed, min(counts.tokens, PAIR_TOKENS))
    topics = _labelled(counts)
    if figures.pair_excess is None:
        return curve, topics
    topics = _with_strength(trial, topics, figures)
    topics = _with_affinity(trial, topics, figures)
    topics = _with_kinds(trial, topics, figures)
    topics = replace(topics, home=home_share(trial.workload(topics), figures))
    topics = _with_drift(trial, topics, figures)
    return curve, replace(topics, home=home_share(trial.workload(topics), figures))


@dataclass(frozen=True, slots=True)
class _Trial:
    """What traces are drawn with while topics are fitted; figures are kept."""

    model: MoEModel
    curve: LoadCurve
    seed: int
    tokens: int
    known: dict[Topics, WorkloadStatistics] = field(default_factory=dict)

    def workload(self, topics: Topics) -> SyntheticWorkload:
        return SyntheticWorkload(self.model, self.seed, self.curve, topics)

    def figures(self, topics: Topics) -> WorkloadStatistics:
        if topics.strength == 0:
            # All topics are alike: how many there are, or how long they last, makes no difference.
            topics = replace(topics, count=2 * max(1, len(topics.domains)), affinity=0.0)
        if topics not in self.known:
            trace = self.workload(topics).trace(self.tokens)
            self.known[topics] = trace_statistics(count_trace(trace))
        return self.known[topics]


def home_share(workload: SyntheticWorkload, figures: WorkloadStatistics) -> float:
    """Return the `home` that gives the workload's sequences the design effect of a trace.

    Tokens of a sequence share its domain d and home topics z, one for each phase: given both, a
    token chooses an expert with chance ``(1 - h) q_d + h p_z``, q_d the mean over topics, and a
    sequence's mean chance has the variance ``var_d(q_d) + h^2 E_d var_z(p_z)``, phases taken by
    their shares of the tokens; drift adds half the square of its swing. The design effect is
    1 + (n - 1) times that variance less the variance between phases, which every sequence has
    alike, summed over experts, over the sum of ``p (1 - p)``, with n tokens to a sequence.

    Parameters
    ----------
    workload
        With all topics' parameters but this one.
    figures
        Of the trace.
    """
    topics, included = workload.sampled()
    length, effect = topics.seq_len, figures.design_effect
    if effect is None or length <= 1:
        return 0.0
    decode = 1.0 - topics.prefill_tokens / length
    chance, shares, phases = topics.chances(), topics.shares(), np.array([1.0 - decode, decode])
    given = np.einsum("dpz,zle->dple", chance, included)
    by_phase = np.einsum("d,dple->ple", shares, given)
    mean = np.einsum("p,ple->le", phases, by_phase)
    alone = (mean * (1.0 - mean)).sum(axis=1)
    between = np.einsum("p,ple->l", phases, (by_phase - mean) ** 2)
    apart = np.einsum("d,dle->l", shares, (np.einsum("p,dple->dle", phases, given) - mean) ** 2)
    swung = np.einsum("p,dpz,z,zle->dle", phases, chance, topics.sides(), included)
    apart += topics.drift**2 / 2 * np.einsum("d,dle->l", shares, swung**2)
    within = np.zeros(len(alone))
    for share, of_domain in zip(shares, chance, strict=True):
        homes = np.einsum("p,pule->ule", phases, included[_homes(of_domain)])
        within += share * homes.var(axis=0).sum(axis=1)
    wanted = float(((effect - 1.0 + between / alone) / (length - 1.0) - apart / alone).mean())
    room = float((within / alone).mean())
    return float(np.sqrt(np.clip(wanted / room, 0.0, 1.0))) if room > 0 else 0.0


def _homes(chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the home topics [phases, points] at evenly spaced points, which phases share."""
    points = (np.arange(_POINTS) + 0.5) / _POINTS
    reached = np.minimum(np.cumsum(chance, axis=1), 1.0)
    found = [np.searchsorted(each, points, "right") for each in reached]
    homes: NDArray[np.int64] = np.minimum(np.array(found), chance.shape[1] - 1)
    return homes


def _with_strength(trial: _Trial, topics: Topics, wanted: WorkloadStatistics) -> Topics:
    """Choose how many topics there are by the top share, each number at its best strength."""
    best, miss, first = topics, np.inf, 2.0
    for each in COUNTS:
        number = each * max(1, len(topics.domains))
        start = replace(topics, count=number, strength=first, affinity=1.0)
        tried, found = _at_strength(trial, start, wanted)
        first = max(1.0, tried.strength)
        off = sum(
            abs(float(np.log((getattr(found, name) or 1e-9) / (getattr(wanted, name) or 1e-9))))
            for name in ("pair_excess", "pair_top_share")
        )
        if off >= miss:
            break
        best, miss = tried, off
    return best


def _at_strength(
    trial: _Trial, topics: Topics, wanted: WorkloadStatistics
) -> tuple[Topics, WorkloadStatistics]:
    def measure(strength: float) -> float:
        return trial.figures(replace(topics, strength=strength)).pair_excess or 0.0

    strength = solve(
        measure, wanted.pair_excess or 0.0, 0.0, MAX_STRENGTH / 2, first=topics.strength
    )
    found = replace(topics, strength=strength)
    return found, trial.figures(found)


def _with_affinity(trial: _Trial, topics: Topics, wanted: WorkloadStatistics) -> Topics:
    if wanted.affinity_excess is None:
        return replace(topics, affinity=0.0)

    def measure(affinity: float) -> float:
        return trial.figures(replace(topics, affinity=affinity)).affinity_excess or 0.0

    return replace(topics, affinity=solve(measure, wanted.affinity_excess, 0.0, 1.0, first=0.9))


def _with_kinds(trial: _Trial, topics: Topics, wanted: WorkloadStatistics) -> Topics:
    """Separate domains and phases until their expected loads correlate as counted ones do."""
    if topics.domains and wanted.domain_correlation is not None:

        def domains(separation: float) -> float:
            tried = replace(topics, domain_separation=separation)
            return -_correlation(trial.workload(tried), axis=0)

        apart = solve(domains, -wanted.domain_correlation, 0.0, 1.0, first=0.5)
        topics = replace(topics, domain_separation=apart)
    if topics.decode_share is not None and wanted.prefill_decode_correlation is not None:
        known = topics

        def phases(separation: float) -> float:
            tried = replace(known, phase_separation=separation)
            return -_correlation(trial.workload(tried), axis=1)

        apart = solve(phases, -wanted.prefill_decode_correlation, 0.0, 1.0, first=0.5)
        topics = replace(topics, phase_separation=apart)
    return topics


def _correlation(workload: SyntheticWorkload, *, axis: int) -> float:
    """Return the mean correlation of the expected loads of domains (axis 0) or phases (axis 1)."""
    topics, included = workload.sampled()
    chances, shares = topics.chances(), topics.shares()
    if axis == 0:
        decode = topics.decode_share or 0.0
        kinds = (1.0 - decode) * chances[:, 0] + decode * chances[:, 1]
    else:
        kinds = np.einsum("d,dpz->pz", shares, chances)
    loads = np.einsum("kz,zle->kle", kinds, included)
    values = [
        correlations(loads[i], loads[j]).mean()
        for i in range(len(loads))
        for j in range(i + 1, len(loads))
    ]
    return float(np.mean(values)) if values else 1.0


def _with_drift(trial: _Trial, topics: Topics, wanted: WorkloadStatistics) -> Topics:
    """Let topics change places from the first token to the last, as far as the trace drifts."""
    turning = replace(topics, drift_tokens=2 * trial.tokens)
    trials = [replace(trial, seed=trial.seed + i, known={}) for i in range(_DRIFT_SEEDS)]

    def measure(drift: float) -> float:
        tried = replace(turning, drift=drift)
        return float(np.mean([each.figures(tried).drift_ends or 0.0 for each in trials]))

    drift = solve(measure, wanted.drift_ends or 0.0, 0.0, 1.0, first=0.2, close=_DRIFT_CLOSE)
    # Fitted on as many tokens as are drawn on the way; the trace itself may be longer.
    tokens = 2 * (wanted.tokens or trial.tokens)
    return replace(turning, drift=drift, drift_tokens=tokens) if drift else topics


def solve(
    measure: Callable[[float], float],
    wanted: float,
    low: float,
    high: float,
    *,
    first: float,
    close: float = 0.01,
) -> float:
    """Return where a rising measure is as wanted, or the nearer end of the range.

    False position with the Illinois rule (Dowell and Jarratt, BIT 11, 1971), from a first guess.

    Parameters
    ----------
    measure
        Rises from `low` to `high`, but for noise.
    wanted
        Value sought.
    low, high, first
        Range, and the guess that is tried first.
    close
        How near is near enough, as a part of the value sought.
    """
    below, above = measure(low) - wanted, None
    if below >= 0:
        return low
    left, right, at = low, high, first
    for _ in range(_TRIES):
        off = measure(at) - wanted
        if abs(off) <= close * abs(wanted) or (off < 0 and at == high):
            return at
        if off < 0:
            left, below, above = at, off, above and above / 2
        else:
            right, above, below = at, off, below / 2
        # Without a point above, the range is halved; at its end, the end itself is tried.
        if above is None:
            at = high if high - left < close * (high - low) else (left + high) / 2
        else:
            at = left + (right - left) * below / (below - above)
    return at


def _labelled(counts: TraceCounts) -> Topics:
    """Return topics with the trace's sequences, domains and phases, and nothing else."""
    domains: tuple[tuple[str, float], ...] = ()
    if counts.domains is not None:
        tokens = counts.domains.sum(axis=(1, 2))
        kept = [i for i in range(len(tokens)) if tokens[i]]
        total = float(tokens.sum())
        domains = tuple((counts.domain_names[i], float(tokens[i]) / total) for i in kept)
    decode = None
    if counts.phases is not None:
        tokens = counts.phases.sum(axis=(1, 2))
        decode = float(tokens[1] / tokens.sum())
    return Topics(
        count=2 * max(1, len(domains)),
        seq_len=max(1, round(counts.tokens / counts.sequences)),
        domains=domains if len(domains) > 1 else (),
        decode_share=decode,
    )


def _shortened(model: MoEModel) -> MoEModel:
    layers = min(max(8, FIT_EXPERTS // model.experts), 64)
    numbers = tuple(range(layers))
    return replace(model, hidden_layers=layers, moe_layers=numbers, architecture=None)
