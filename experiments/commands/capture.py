"""`topomoe capture`: the router choices of a model on a file of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from experiments.atomic import check_destinations
from experiments.capture.loading import model_folder
from experiments.capture.record import CaptureOptions, capture
from experiments.commands.show import console, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.capture.record import Captured


def run(
    model: Path,
    prompts: Path,
    out: Path,
    *,
    new_tokens: int,
    batch_size: int,
    device: str | None,
    json_file: Path | None,
) -> None:
    """Record, print how much, and say what to do with it."""
    check_destinations([json_file], inputs=[prompts])
    with console.status("reading ...") as status:
        captured = capture(
            model,
            prompts,
            out,
            CaptureOptions(new_tokens, batch_size, device),
            progress=status.update,
        )
    console.print(_table(captured))
    folder = model_folder(model)
    console.print(f"trace written to {out}; topomoe place --model {folder}/ --trace {out} takes it")
    write_json(json_file, _figures(captured))


def _figures(captured: Captured) -> dict[str, Any]:
    shape = captured.model
    return {
        "model": shape.name,
        "layers": shape.layers,
        "experts": shape.experts,
        "top_k": shape.top_k,
        "sequences": captured.sequences,
        "prefill_tokens": captured.prefill_tokens,
        "decode_tokens": captured.decode_tokens,
        "domains": list(captured.domains),
    }


_LABELS = {
    "model": "model",
    "layers": "MoE layers",
    "experts": "experts of a layer",
    "top_k": "choices of a token in a layer",
    "sequences": "sequences",
    "prefill_tokens": "prompt tokens (prefill)",
    "decode_tokens": "generated tokens (decode)",
    "domains": "domains",
}


def _table(captured: Captured) -> Table:
    table = Table(show_edge=False, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for key, value in _figures(captured).items():
        shown = ", ".join(value) or "-" if isinstance(value, list) else value
        table.add_row(_LABELS[key], f"{shown:,}" if isinstance(shown, int) else str(shown))
    return table
