"""The shape of a Mixture-of-Experts model."""

from __future__ import annotations

from dataclasses import dataclass

from workloads.architecture import BF16, Architecture, ResidentParameters, Storage
from workloads.errors import WorkloadError

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
    mtp_layers
        Layers for multi-token prediction, each a MoE layer like the others, loaded beside the
        model and placed like one more layer.
    storage
        Bytes of a weight.
    architecture
        What surrounds the experts; None where only routing is known, and then the model says
        nothing of memory.
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
    mtp_layers: int = 0
    storage: Storage = BF16
    architecture: Architecture | None = None

    def __post_init__(self) -> None:
        """Refuse a shape that no model can have."""
        for field in ("hidden_layers", "experts", "top_k", "hidden", "moe_intermediate"):
            if getattr(self, field) < 1:
                raise WorkloadError(
                    f"model {self.name!r}: {field} is {getattr(self, field)}, expected at least 1"
                )
        for field in ("shared_experts", "mtp_layers"):
            if getattr(self, field) < 0:
                raise WorkloadError(
                    f"model {self.name!r}: {field} is {getattr(self, field)}, expected at least 0"
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
        self._check_dense()

    def _check_dense(self) -> None:
        shape, dense = self.architecture, self.hidden_layers - self.layers
        if shape is not None and dense and shape.dense_intermediate is None:
            raise WorkloadError(
                f"model {self.name!r}: {dense} of {self.hidden_layers} layers are dense; expected "
                "dense_intermediate, their width"
            )

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

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes of a routed expert's weight, scales included."""
        return self.storage.experts

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes a token takes in the BF16 cache of all layers, MTP layers aside."""
        return 2 * self.cached_numbers()

    @property
    def parameters(self) -> int:
        """Weights of the model in all, MTP layers aside."""
        experts = self.layers * self.experts * self.parameters_per_expert
        return experts + self.resident_parameters().total

    @property
    def mtp_parameters(self) -> int:
        """Weights that come with the MTP layers; embedding and head are the model's own."""
        experts = self.mtp_layers * self.experts * self.parameters_per_expert
        resident = self.resident_parameters(mtp=True).total - self.resident_parameters().total
        return experts + resident

    def cached_numbers(self, *, tp: int = 1, mtp: bool = False) -> int:
        """Numbers a token leaves in a rank's KV cache: of all layers, with `mtp` of MTP layers too.

        Raises
        ------
        WorkloadError
            If the architecture is not known, or `tp` does not divide the heads.
        """
        layers = self.hidden_layers + (self.mtp_layers if mtp else 0)
        return layers * self._known().attention.cached_numbers(tp)

    def resident_parameters(self, *, tp: int = 1, mtp: bool = False) -> ResidentParameters:
        """Weights that every rank holds besides routed experts, under data-parallel attention.

        Parameters
        ----------
        tp
            Ranks that share the attention weights of a layer.
        mtp
            Whether the MTP layers are loaded too: attention, shared experts and router of each,
            and a ``2 * hidden x hidden`` matrix in front (DeepSeek-V3, arXiv 2412.19437, 2.2).

        Raises
        ------
        WorkloadError
            If the architecture is not known, or `tp` does not divide the heads.
        """
        shape, extra = self._known(), self.mtp_layers if mtp else 0
        dense_layers, moe_layers = self.hidden_layers - self.layers, self.layers + extra
        return ResidentParameters(
            attention=(self.hidden_layers + extra) * shape.attention.parameters(self.hidden, tp),
            dense=dense_layers * 3 * self.hidden * (shape.dense_intermediate or 0)
            + extra * 2 * self.hidden**2,
            shared_experts=moe_layers * self.shared_experts * self.parameters_per_expert,
            routers=moe_layers * self.hidden * self.experts,
            embeddings=(1 if shape.tied else 2) * shape.vocabulary * self.hidden,
        )

    def _known(self) -> Architecture:
        if self.architecture is None:
            raise WorkloadError(
                f"model {self.name!r} does not say what surrounds its experts; expected an "
                "architecture (attention, vocabulary, dense width) to count memory from"
            )
        return self.architecture
