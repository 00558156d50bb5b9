"""`topomoe convert`: loads, traces and maps from one format into another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.atomic import check_destinations
from experiments.commands.show import console, write_json
from experiments.conversion import STORED, read_content, recognise, target, write_content
from experiments.maps import how_to_load
from placement import Placement
from placement.formats import MAP_FORMATS
from workloads import RoutingTrace, model

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.conversion import Content


def run(
    old: Path,
    new: Path,
    *,
    forms: tuple[str | None, str | None],
    model_name: str,
    ranks: int | None,
    gpus_per_server: int | None,
    json_file: Path | None,
) -> None:
    """Read one file, write the other, and say what was taken for what.

    Parameters
    ----------
    old, new
        The file to read and the one to write.
    forms
        Their formats; None where the content, or the end of the name, is to tell.
    model_name
        Preset or config file.
    ranks, gpus_per_server
        Of a map, where the file does not say.
    json_file
        Where programs find what was said.
    """
    shape = model(model_name)
    source = recognise(old, shape, forms[0])
    form = target(new, forms[1], source)
    check_destinations([None if form == STORED else new, json_file], inputs=[old])
    content = read_content(old, source, shape, ranks=ranks, gpus_per_server=gpus_per_server)
    left = write_content(new, content, form, shape, ranks=ranks)
    told = " (told by its content)" if source.guessed else ""
    console.print(
        f"{old}: {source.kind} in the format {source.form}{told}, {_size(content)}", soft_wrap=True
    )
    console.print(f"{new}: written as {form}", *left, sep="; ", soft_wrap=True)
    hint = ""
    if isinstance(content, Placement) and form in MAP_FORMATS:
        hint = how_to_load(MAP_FORMATS[form], new, content)
    if hint:
        console.print(hint, soft_wrap=True)
    said = {"from": source.form, "to": form, "kind": source.kind, "guessed": source.guessed}
    write_json(json_file, {**said, **_figures(content), "left_out": left})


def _figures(content: Content) -> dict[str, Any]:
    if isinstance(content, Placement):
        return {
            "layers": content.layers,
            "experts": content.experts,
            "ranks": content.gpus,
            "slots": len(content.slot_expert),
            "redundant_slots": content.redundant,
        }
    if isinstance(content, RoutingTrace):
        return {
            "layers": content.layers,
            "experts": content.experts,
            "tokens": content.tokens,
            "sequences": len(content.seq_lens),
        }
    steps, layers, experts = content.counts.shape
    return {"layers": layers, "experts": experts, "steps": steps}


def _size(content: Content) -> str:
    figures = {"layers": "MoE layers"} | {
        name: name.replace("_", " ") for name in _figures(content) if name != "layers"
    }
    return ", ".join(f"{_figures(content)[key]:,} {name}" for key, name in figures.items())
