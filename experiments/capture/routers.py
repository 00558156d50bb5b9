"""Hooks on a model's routers, which keep the expert ids that routers return.

The top-k of `output_router_logits` would be wrong: DeepSeek-V3 and GLM-4.5 choose with a
correction bias and within groups, neither of which is in the logits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from experiments.errors import ExperimentError, RunError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from workloads import MoEModel

_CLASS = "topkrouter"
"""End of the name of a router's class, in small letters."""
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def find_routers(network: Any, model: MoEModel, where: str) -> list[Any]:
    """Return the routers of the MoE layers, ascending.

    Parameters
    ----------
    network
        A torch module of transformers.
    model
        What the model's config says; the routers must be where it has MoE layers.
    where
        What the network is called in messages.

    Raises
    ------
    ExperimentError
        If there are none, or their layers are others than `model` says.
    """
    found: dict[int, Any] = {}
    for name, module in network.named_modules():
        layer = _LAYER.search(name)
        if layer is not None and type(module).__name__.lower().endswith(_CLASS):
            found[int(layer[1])] = module
    if not found:
        raise ExperimentError(
            f"{where}: {type(network).__name__} has no module in a layer whose class name ends in "
            "TopkRouter; expected a MoE model as transformers 5.23 builds them"
        )
    if tuple(sorted(found)) != model.moe_layers:
        odd = min(set(found) ^ set(model.moe_layers))
        here = "has a router" if odd in found else "has no router"
        raise ExperimentError(
            f"{where}: layer {odd} of {type(network).__name__} {here}, its config.json says "
            "otherwise; expected the same MoE layers"
        )
    return [found[layer] for layer in sorted(found)]


class RouterRecorder:
    """Keeps what the routers choose in a forward pass, until it is taken: ``with`` hooks them."""

    def __init__(self, routers: list[Any], model: MoEModel) -> None:
        self._routers = routers
        self._model = model
        self._kept: list[list[Any]] = [[] for _ in routers]
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        """Set the hooks."""
        for router, kept in zip(self._routers, self._kept, strict=True):
            self._handles.append(router.register_forward_hook(self._hook(kept)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def take(self, sequences: int, length: int) -> NDArray[np.int64]:
        """Return the choices since the last call, int64 [sequences, length, layers, k].

        Raises
        ------
        RunError
            If a router was not asked exactly once for every token.
        """
        k = self._model.top_k
        for layer, kept in zip(self._model.moe_layers, self._kept, strict=True):
            shapes = [tuple(ids.shape) for ids in kept]
            if shapes != [(sequences * length, k)]:
                raise RunError(
                    f"the router of layer {layer} returned ids of shapes {shapes} in a pass; "
                    f"expected {(sequences * length, k)} once"
                )
        # Taken from the device only now: a copy in a hook would wait for every layer.
        ids = np.stack([kept.pop().cpu().numpy() for kept in self._kept], axis=1)
        return ids.reshape(sequences, length, len(self._routers), k).astype(np.int64)

    def _hook(self, kept: list[Any]) -> Any:
        def keep(module: Any, _given: Any, returned: Any) -> None:
            ids = returned[-1] if isinstance(returned, tuple) and len(returned) == 3 else None
            if ids is None or ids.is_floating_point():
                raise RunError(
                    f"{type(module).__name__} does not return (logits, weights, expert ids); "
                    "expected transformers 5.23 or newer"
                )
            kept.append(ids.detach())

        return keep
