"""All that a placement policy may see: costs, capacities and the workload's statistics."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError, PlacementError
from placement.placement import Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.attention import Attention
    from placement.solve import SolveReport
    from workloads import ExpertProfile, MoEModel


@dataclass(frozen=True, slots=True, eq=False)
class PlacementProblem:
    """One placement to be found.

    Attributes
    ----------
    model
        Name of the model, carried into the placement.
    cost
        float64 [layers, servers]: hops to dispatch one choice of a layer to a server and to
        collect its result.
    profile
        Expert statistics of the workload.
    top_k
        Choices of a token in a layer; hops per token are k times hops per choice.
    gpus_per_server
        GPUs of every server.
    layer_slots
        C_layer: most experts of one layer on a server.
    server_slots
        C_exp: most experts on a server, over all layers.
    n_group
        Routing groups of the model: equal runs of consecutive experts. None without groups.
    """

    model: str
    cost: NDArray[np.float64]
    profile: ExpertProfile
    top_k: int
    gpus_per_server: int
    layer_slots: int
    server_slots: int
    n_group: int | None = None

    def __post_init__(self) -> None:
        """Freeze the costs and refuse caps that cannot hold the experts."""
        cost = np.array(self.cost, dtype=np.float64)
        if cost.ndim != 2 or not np.isfinite(cost).all():
            raise PlacementError("cost must be a finite [layers, servers] array")
        cost.setflags(write=False)
        object.__setattr__(self, "cost", cost)
        if self.profile.layers != self.layers:
            raise PlacementError(
                f"costs speak of {self.layers} MoE layers, the profile of {self.profile.layers}"
            )
        self._check_shape()
        self._check_caps()

    def _check_shape(self) -> None:
        for what in ("gpus_per_server", "top_k"):
            if getattr(self, what) < 1:
                raise PlacementError(f"{what} is {getattr(self, what)}, expected at least 1")
        if self.n_group is not None and (self.n_group < 1 or self.experts % self.n_group):
            raise PlacementError(
                f"n_group {self.n_group} does not divide {self.experts} experts into equal runs"
            )
        choices = self.profile.choices
        if choices is not None and choices.shape[2] != self.top_k:
            raise PlacementError(
                f"profile from '{self.profile.source}' has tokens that chose {choices.shape[2]} "
                f"experts, model '{self.model}' has top_k {self.top_k}; expected the same"
            )

    def _check_caps(self) -> None:
        layers, experts, servers = self.layers, self.experts, self.servers
        for cap, have, need in (
            ("layer_slots", servers * self.layer_slots, experts),
            ("server_slots", servers * self.server_slots, layers * experts),
            (
                "server_slots and layer_slots together",
                servers * min(self.server_slots, layers * self.layer_slots),
                layers * experts,
            ),
        ):
            if have < need:
                raise InfeasibleError(
                    f"{cap} too small: {servers} servers hold {have} experts, {need} are to be "
                    f"placed, {need - have} slots are missing"
                )

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.cost.shape[0])

    @property
    def servers(self) -> int:
        """Servers of the cluster."""
        return int(self.cost.shape[1])

    @property
    def experts(self) -> int:
        """Routed experts of a layer."""
        return self.profile.experts

    def place(
        self, server: NDArray[np.integer], *, policy: str, solve: SolveReport | None = None
    ) -> Placement:
        """Turn a choice of servers into a placement, dealing each server's experts to its GPUs.

        Inside a server the experts go to the GPUs in one turn, by layer and expert id, that
        continues across layers.

        Parameters
        ----------
        server
            int [layers, experts]: the server of every expert.
        policy, solve
            Who chose, and what the solver says of it.

        Raises
        ------
        InfeasibleError
            If the choice breaks a cap.
        """
        given = np.asarray(server)
        if given.dtype.kind not in "iu":
            raise PlacementError(
                f"policy '{policy}' must name servers by integers, got {given.dtype}"
            )
        server_of = given.astype(np.int64)
        if server_of.shape != (self.layers, self.experts):
            raise PlacementError(
                f"policy '{policy}' must give a server for each of {self.layers} layers x "
                f"{self.experts} experts, got shape {server_of.shape}"
            )
        self._check_servers(server_of, policy)
        flat = server_of.ravel()
        order = np.argsort(flat, kind="stable")
        first = np.concatenate(([0], np.cumsum(np.bincount(flat, minlength=self.servers))))
        turn = np.empty_like(flat)
        turn[order] = np.arange(flat.size) - first[flat[order]]
        layer, expert = np.divmod(np.arange(flat.size), self.experts)
        return Placement(
            model=self.model,
            layers=self.layers,
            experts=self.experts,
            gpus=self.servers * self.gpus_per_server,
            gpus_per_server=self.gpus_per_server,
            slot_layer=layer.astype(np.int32),
            slot_gpu=(flat * self.gpus_per_server + turn % self.gpus_per_server).astype(np.int32),
            slot_expert=expert.astype(np.int32),
            policy=policy,
            solve=solve,
        )

    def check(self, placement: Placement) -> None:
        """Refuse a placement of something else, or one without replicas that breaks a cap.

        Redundant slots come on top of the caps, so a placement with replicas is not held to
        them.

        Raises
        ------
        PlacementError
            If model, layers, experts or GPUs differ from the problem's.
        InfeasibleError
            If a server holds more than its caps, or a GPU more than its even part of them.
        """
        for what, have, want in (
            ("model", placement.model, self.model),
            ("MoE layers", placement.layers, self.layers),
            ("experts", placement.experts, self.experts),
            ("GPUs", placement.gpus, self.servers * self.gpus_per_server),
            ("GPUs per server", placement.gpus_per_server, self.gpus_per_server),
        ):
            if have != want:
                raise PlacementError(
                    f"policy '{placement.policy}' gives a placement with {what} {have}; "
                    f"the problem has {want}"
                )
        if not placement.redundant:
            self._check_servers(placement.server_of_expert.astype(np.int64), placement.policy)
            self._check_gpus(placement)

    def _check_gpus(self, placement: Placement) -> None:
        cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
        held = np.bincount(cell, minlength=self.layers * placement.gpus)
        held = held.reshape(self.layers, placement.gpus)
        for what, most, cap in (
            ("of one layer", held.max(axis=0), self.layer_slots),
            ("in all", held.sum(axis=0), self.server_slots),
        ):
            limit = ceil(cap / self.gpus_per_server)
            if most.max() > limit:
                gpu = int(np.argmax(most))
                raise InfeasibleError(
                    f"policy '{placement.policy}' puts {most[gpu]} experts {what} on GPU {gpu}, "
                    f"which takes {limit}"
                )

    def _check_servers(self, server: NDArray[np.int64], policy: str) -> None:
        if server.min() < 0 or server.max() >= self.servers:
            raise PlacementError(
                f"policy '{policy}' names server {int(server.max())} or "
                f"{int(server.min())}; the cluster has servers 0..{self.servers - 1}"
            )
        flat = np.arange(self.layers)[:, None] * self.servers + server
        counts = np.bincount(flat.ravel(), minlength=self.layers * self.servers)
        counts = counts.reshape(self.layers, self.servers)
        total = counts.sum(axis=0)
        if counts.max() > self.layer_slots:
            layer, at = np.argwhere(counts > self.layer_slots)[0]
            raise InfeasibleError(
                f"policy '{policy}' breaks layer_slots: layer {layer} puts {counts[layer, at]} "
                f"experts on server {at}, which takes {self.layer_slots}"
            )
        if total.max() > self.server_slots:
            at = int(np.argmax(total))
            raise InfeasibleError(
                f"policy '{policy}' breaks server_slots: server {at} gets {total[at]} experts "
                f"and takes {self.server_slots}"
            )

    @classmethod
    def build(
        cls,
        model: MoEModel,
        server_distance: NDArray[np.signedinteger],
        attention: Attention,
        profile: ExpertProfile,
        *,
        gpus_per_server: int,
        layer_slots: int | None = None,
        server_slots: int | None = None,
    ) -> PlacementProblem:
        """Price every server for every layer: ``cost[l, s] = E d(o, s) + E d(s, c)``.

        Parameters
        ----------
        model, profile
            The model and its expert statistics.
        server_distance
            int [servers, servers]: hops of the routing in force.
        attention
            Where tokens start and end.
        gpus_per_server
            GPUs of every server.
        layer_slots, server_slots
            The caps C_layer and C_exp; by default the study's, ``ceil(2E/S)`` and
            ``ceil(LE/S)``, which both bind.

        Raises
        ------
        PlacementError
            If model, profile, attention and distances do not speak of the same layers, experts
            and servers.
        InfeasibleError
            If the caps cannot hold the experts.
        """
        distance = np.asarray(server_distance, dtype=np.float64)
        servers = len(distance)
        _check_parts(model, servers, attention, profile)
        cost = attention.origin_share() @ distance + attention.collector_share() @ distance.T
        return cls(
            model=model.name,
            cost=cost,
            profile=profile,
            top_k=model.top_k,
            gpus_per_server=gpus_per_server,
            layer_slots=layer_slots or ceil(2 * model.experts / servers),
            server_slots=server_slots or ceil(model.layers * model.experts / servers),
            n_group=model.n_group,
        )


def _check_parts(
    model: MoEModel, servers: int, attention: Attention, profile: ExpertProfile
) -> None:
    """Refuse a profile of another model, and an attention of another model or cluster."""
    if (profile.layers, profile.experts) != (model.layers, model.experts):
        raise PlacementError(
            f"profile from '{profile.source}' counts {profile.layers} MoE layers x "
            f"{profile.experts} experts, model '{model.name}' has {model.layers} x "
            f"{model.experts}; give loads of this model, or the model they were recorded on"
        )
    shape = attention.origin_share().shape
    if shape != (model.layers, servers):
        raise PlacementError(
            f"attention '{attention.name}' is of {shape[0]} MoE layers on {shape[1]} servers, "
            f"model '{model.name}' and cluster have {model.layers} on {servers}; expected the same"
        )
