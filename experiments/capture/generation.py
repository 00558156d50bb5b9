"""A batch of prompts through the model: read in one pass, answered greedily token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.capture.loading import first_line
from experiments.errors import RunError
from workloads.trace import DECODE, PREFILL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from experiments.capture.loading import LoadedModel
    from experiments.capture.routers import RouterRecorder


def route_batch(
    model: LoadedModel,
    recorder: RouterRecorder,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Return the choices of every sequence's own tokens, padding left out.

    Prompts are padded on the left to a common length and read in one pass. Then up to `new_tokens`
    are generated, each the likeliest; all but the last also pass through the model. A sequence
    ends with a token that says so.

    Parameters
    ----------
    prompts
        Token ids of each, at least one.

    Returns
    -------
    list
        Of every sequence the ids, int64 [tokens, layers, k], and the phase, uint8 [tokens].

    Raises
    ------
    RunError
        If the model fails, as where memory is short.
    """
    try:
        return _Batch(model, recorder, prompts).run(new_tokens)
    except RunError:
        raise
    except RuntimeError as error:  # torch's own, running out of memory among them
        longest = max(len(ids) for ids in prompts)
        raise RunError(
            f"{model.folder}: the model failed on {len(prompts)} prompts of up to {longest} "
            f"tokens: {first_line(error)}; where memory is short, lower --batch-size"
        ) from error


class _Batch:
    """The tensors of a batch as it grows."""

    def __init__(
        self, model: LoadedModel, recorder: RouterRecorder, prompts: Sequence[Sequence[int]]
    ) -> None:
        import torch  # noqa: PLC0415  seconds, and an extra

        self._torch = torch
        self._network, self._recorder, self._stops = model.network, recorder, model.stops
        self._device = model.network.get_input_embeddings().weight.device
        self._lengths = [len(ids) for ids in prompts]
        longest = max(self._lengths)
        padding = [longest - length for length in self._lengths]
        ids = [[0] * before + list(own) for before, own in zip(padding, prompts, strict=True)]
        self._ids = torch.tensor(ids, device=self._device)
        self._mask = torch.tensor(
            [[0] * before + [1] * (longest - before) for before in padding], device=self._device
        )
        self._cache: Any = None

    def run(self, new_tokens: int) -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Read the prompts, then feed the answers back."""
        with self._torch.inference_mode():
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
            chosen, following = self._forward(self._ids, positions)
            rows = [[own[-length:]] for own, length in zip(chosen, self._lengths, strict=True)]
            live = self._going_on(following)
            for _ in range(new_tokens - 1):
                if not live.any():
                    break
                positions = positions[:, -1:] + 1
                self._mask = self._torch.nn.functional.pad(self._mask, (0, 1), value=1)
                chosen, following = self._forward(following[:, None], positions)
                for at in np.flatnonzero(live):
                    rows[at].append(chosen[at])
                live &= self._going_on(following)
        return [self._sequence(parts) for parts in rows]

    def _forward(self, ids: Any, positions: Any) -> tuple[NDArray[np.int64], Any]:
        """Run a pass; return its choices and, of every sequence, the token that follows."""
        out = self._network(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        following = out.logits[:, -1].argmax(dim=-1).to(self._device)
        return self._recorder.take(*ids.shape), following

    def _going_on(self, following: Any) -> NDArray[np.bool_]:
        return np.array([token not in self._stops for token in following.tolist()])

    @staticmethod
    def _sequence(
        parts: list[NDArray[np.int64]],
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        ids = np.concatenate(parts)
        phase = np.full(len(ids), DECODE, dtype=np.uint8)
        phase[: len(parts[0])] = PREFILL
        return ids, phase
