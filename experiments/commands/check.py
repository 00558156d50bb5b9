"""`topomoe check`: would an engine load this map, and if not, why not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from experiments.atomic import check_destinations
from experiments.commands.show import console, write_json
from experiments.conversion import READ
from experiments.errors import ExperimentError
from experiments.maps import PROPOSAL, doubled_slots, how_to_load
from placement import PlacementError
from placement.engines import ENGINES, engine, refusal
from placement.formats import check_loads, guess_map, map_format
from placement.formats.trtllm import updates_per_iter
from workloads import model
from workloads.readers.any_file import guess_load
from workloads.readers.peek import peek

if TYPE_CHECKING:
    from pathlib import Path

    from placement import Placement
    from placement.formats import MapFormat
    from workloads import MoEModel

LOADS = "sglang-load"
"""Loads that SGLang takes in the place of a map."""

AS_IT_STANDS = "as it stands"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an engine makes of a map.

    Attributes
    ----------
    engine
        Its name.
    how
        What of it is judged: the file as it stands, or what `topomoe convert` would write.
    findings
        Why it would refuse the map or be led astray; empty if it would load it.
    """

    engine: str
    how: str
    findings: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing stands against the map."""
        return not self.findings

    @property
    def sentence(self) -> str:
        """One line for people."""
        if self.accepted:
            return f"{self.engine}: would be accepted, {self.how}"
        return f"{self.engine}: would be refused, {self.how}, because {'; '.join(self.findings)}"


def run(
    file: Path,
    *,
    engine_name: str | None,
    form: str | None,
    model_name: str,
    ranks: int | None,
    json_file: Path | None,
) -> None:
    """Judge a map by the rules of one engine, or of all.

    Raises
    ------
    ExperimentError
        The engine would refuse it: the one asked for, else the one whose format the file is in,
        else all of them.
    """
    shape = model(model_name)
    names = [engine(engine_name).name] if engine_name is not None else list(ENGINES)
    check_destinations([json_file], inputs=[file])
    found = form or _guessed(file, shape)
    told = "" if form else " (told by its content)"
    console.print(f"{file}: format {found}{told}", soft_wrap=True)
    own: str | None = "sglang"
    if found == LOADS:
        verdicts = [_of_loads(file, shape, name) for name in names]
    else:
        own, verdicts = _of_map(file, map_format(found), shape, ranks, names)
    for verdict in verdicts:
        console.print(verdict.sentence, soft_wrap=True)
    content = [
        {**asdict(verdict), "accepted": verdict.accepted, "findings": list(verdict.findings)}
        for verdict in verdicts
    ]
    write_json(json_file, {"format": found, "model": shape.name, "engines": content})
    _judge(file, own, verdicts)


def _guessed(file: Path, shape: MoEModel) -> str:
    seen = peek(file)
    found = guess_map(seen, shape)
    if found is not None:
        return found
    if seen.damage:
        raise ExperimentError(f"{file}: {seen.damage}")
    if guess_load(file, seen, shape) == LOADS:
        return LOADS
    raise ExperimentError(
        f"{file}: no map of experts by its content; name its format with --from: "
        f"{', '.join(READ['map'])}"
    )


def _of_loads(file: Path, shape: MoEModel, name: str) -> Verdict:
    if name != "sglang":
        return Verdict(name, how=AS_IT_STANDS, findings=("it holds loads, not a map",))
    return Verdict(name, how=AS_IT_STANDS, findings=tuple(check_loads(file, shape)))


def _of_map(
    file: Path, form: MapFormat, shape: MoEModel, ranks: int | None, names: list[str]
) -> tuple[str | None, list[Verdict]]:
    """Judge the file by its own engine's rules, and the placement in it by the others'."""
    if ranks is None and not form.carries_ranks:
        raise ExperimentError(
            f"{file}: the format {form.name} does not say on how many GPUs slots are; give --ranks"
        )
    findings = tuple(form.check(file, model=shape, ranks=ranks))
    placement, why = _placed(file, form, shape, ranks)
    verdicts = [
        Verdict(name, _how(form), findings)
        if name == form.engine
        else Verdict(name, _converted(name), _by_rules(placement, why, name))
        for name in names
    ]
    if placement is not None:
        _say(file, form, placement, accepted=not findings)
    return form.engine, verdicts


def _how(form: MapFormat) -> str:
    """Say as what an engine's own file is judged: vLLM reads files of no format yet."""
    if form.name.startswith(PROPOSAL):
        return "in a format that is a proposal to it"
    return AS_IT_STANDS if form.engine != "vllm" else "as the table of its EPLB"


def _converted(name: str) -> str:
    return f"once converted to a format {'proposed to it' if name == 'vllm' else 'of its own'}"


def _placed(
    file: Path, form: MapFormat, shape: MoEModel, ranks: int | None
) -> tuple[Placement | None, str]:
    try:
        return form.read(file, model=shape, ranks=ranks, gpus_per_server=1), ""
    except PlacementError as error:
        return None, str(error).removeprefix(f"{file}: ")


def _by_rules(placement: Placement | None, why: str, name: str) -> tuple[str, ...]:
    if placement is None:
        return (f"there is nothing to convert: {why}",)
    against = refusal(placement, ENGINES[name])
    return () if against is None else (against,)


def _say(file: Path, form: MapFormat, placement: Placement, *, accepted: bool) -> None:
    redundant = placement.redundant / placement.layers
    console.print(
        f"{placement.layers} MoE layers of {placement.experts} experts on {placement.gpus} GPUs, "
        f"{redundant:g} redundant slots a layer",
        soft_wrap=True,
    )
    twice = doubled_slots(placement)
    if twice:
        console.print(f"{twice:,} slots repeat an expert of their own GPU: wasted where accepted")
    hint = how_to_load(form, file, placement)
    if accepted and hint:
        console.print(hint, soft_wrap=True)
    updates = updates_per_iter(file) if form.name == "trtllm" else 0
    if updates:
        console.print(
            f"layer_updates_per_iter is {updates} in this file: TensorRT-LLM would move experts as "
            "it runs, and not keep the map",
            soft_wrap=True,
        )


def _judge(file: Path, own: str | None, verdicts: list[Verdict]) -> None:
    """Let the command fail where the verdict that counts is a refusal."""
    if len(verdicts) > 1:
        of_own = [verdict for verdict in verdicts if verdict.engine == own]
        verdicts = of_own or sorted(verdicts, key=lambda verdict: not verdict.accepted)[:1]
    if not verdicts[0].accepted:
        raise ExperimentError(f"{file}: {verdicts[0].sentence}")
