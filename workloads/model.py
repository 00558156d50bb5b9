"""The shape of a Mixture-of-Experts model, and presets of published ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EXPERTS = 1 << 16
"""Most experts of a layer: what the widest element type of a trace, uint16, can name."""


@dataclass(frozen=True, slots=True)
class MoEModel:
    """Everything the other packages need to know of a model.

    Attributes
    ----------
    name
        Preset or file name.
    hidden_layers
        All transformer layers, dense ones included.
    moe_layers
        Absolute numbers of the MoE layers, ascending; everywhere else ``layer`` counts these
        from 0.
    experts, top_k, shared_experts
        Routed experts of a layer, choices of a token, experts every token uses.
    hidden, moe_intermediate
        Model width and width of one expert.
    n_group, topk_group
        Group-limited routing: experts fall into `n_group` equal runs of consecutive ids, a
        token draws from at most `topk_group` of them. Both None without groups.
    """

    name: str
    hidden_layers: int
    moe_layers: tuple[int, ...]
    experts: int
    top_k: int
    shared_experts: int
    hidden: int
    moe_intermediate: int
    n_group: int | None = None
    topk_group: int | None = None

    def __post_init__(self) -> None:
        """Refuse a shape that no model can have."""
        for field in ("hidden_layers", "experts", "top_k", "hidden", "moe_intermediate"):
            if getattr(self, field) < 1:
                raise WorkloadError(
                    f"model {self.name!r}: {field} is {getattr(self, field)}, expected at least 1"
                )
        if self.shared_experts < 0:
            raise WorkloadError(
                f"model {self.name!r}: shared_experts is {self.shared_experts}, expected at least 0"
            )
        if self.experts > MAX_EXPERTS:
            raise WorkloadError(
                f"model {self.name!r}: {self.experts} experts, expected at most {MAX_EXPERTS}"
            )
        if self.top_k > self.experts:
            raise WorkloadError(
                f"model {self.name!r}: top_k {self.top_k} of {self.experts} experts, "
                "expected at most as many choices as experts"
            )
        self._check_layers()
        self._check_groups()

    def _check_layers(self) -> None:
        object.__setattr__(self, "moe_layers", tuple(self.moe_layers))
        inside = set(range(self.hidden_layers))
        if not self.moe_layers or not inside.issuperset(self.moe_layers):
            raise WorkloadError(
                f"model {self.name!r}: moe_layers must name at least one of the layers "
                f"0..{self.hidden_layers - 1}, got {self.moe_layers}"
            )
        if list(self.moe_layers) != sorted(set(self.moe_layers)):
            raise WorkloadError(f"model {self.name!r}: moe_layers must ascend, each layer once")

    def _check_groups(self) -> None:
        if self.n_group is None and self.topk_group is None:
            return
        if self.n_group is None or self.topk_group is None:
            raise WorkloadError(
                f"model {self.name!r}: n_group and topk_group come together, "
                f"got {self.n_group} and {self.topk_group}"
            )
        if self.n_group < 1 or self.experts % self.n_group:
            raise WorkloadError(
                f"model {self.name!r}: n_group {self.n_group} does not divide "
                f"{self.experts} experts"
            )
        if not 1 <= self.topk_group <= self.n_group:
            raise WorkloadError(
                f"model {self.name!r}: topk_group is {self.topk_group}, expected 1..{self.n_group}"
            )
        reach = self.topk_group * (self.experts // self.n_group)
        if reach < self.top_k:
            raise WorkloadError(
                f"model {self.name!r}: {self.topk_group} groups hold {reach} experts, "
                f"too few for top_k {self.top_k}"
            )

    @property
    def layers(self) -> int:
        """MoE layers."""
        return len(self.moe_layers)

    @property
    def parameters_per_expert(self) -> int:
        """Gate, up and down projection: 3 * hidden * moe_intermediate."""
        return 3 * self.hidden * self.moe_intermediate


_DEEPSEEK_MOE_16B = MoEModel(
    name="DeepSeekMoE-16B",
    hidden_layers=28,
    moe_layers=tuple(range(1, 28)),
    experts=64,
    top_k=6,
    shared_experts=2,
    hidden=2048,
    moe_intermediate=1408,
)
_DEEPSEEK_R1 = MoEModel(
    name="DeepSeek-R1",
    hidden_layers=61,
    moe_layers=tuple(range(3, 61)),
    experts=256,
    top_k=8,
    shared_experts=1,
    hidden=7168,
    moe_intermediate=2048,
    n_group=8,
    topk_group=4,
)

PRESETS: Mapping[str, MoEModel] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _DEEPSEEK_R1,
            replace(
                _DEEPSEEK_MOE_16B,
                name="DeepSeek-V2-Lite",
                hidden_layers=27,
                moe_layers=tuple(range(1, 27)),
            ),
            replace(_DEEPSEEK_R1, name="DeepSeek-V3"),
            _DEEPSEEK_MOE_16B,
        )
    }
)
"""Published models by name; shapes from their Hugging Face ``config.json``. Dense layers come
first in all of them."""


def model(name: str) -> MoEModel:
    """Return the preset called `name`.

    Raises
    ------
    WorkloadError
        No such preset; the message lists those there are.
    """
    if name not in PRESETS:
        raise WorkloadError(f"unknown model {name!r}: expected one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
