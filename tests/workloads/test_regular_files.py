"""Pipes and devices: refused at once, for a reader would wait or never come to an end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from placement import PlacementError
from placement.formats import MAP_FORMATS
from workloads import WorkloadError, model, read_chunks
from workloads.hf_config import read_config
from workloads.readers.any_file import LOADS, TRACES
from workloads.readers.peek import peek
from workloads.regular import check_regular
from workloads.store import StoredTrace

if TYPE_CHECKING:
    from pathlib import Path

LITE = model("DeepSeek-V2-Lite")
REFUSED = "cannot be read: it is no regular file"


@pytest.fixture(params=["pipe", "device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a pipe that nobody writes to, and a device that never ends."""
    file = tmp_path / "endless.npz"
    if request.param == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    return file


@pytest.mark.parametrize("name", [*LOADS, *TRACES])
def test_readers_refuse_what_does_not_end(name: str, endless: Path) -> None:
    """Every reader of loads and of choices says in one line that it is no regular file."""
    if name == "topomoe-trace":
        pytest.skip("reads a folder")
    read = {**LOADS, **TRACES}[name]
    with pytest.raises(WorkloadError) as caught:
        read(endless, LITE)
    assert str(caught.value) == f"{endless}: {REFUSED}"


@pytest.mark.parametrize("name", MAP_FORMATS)
def test_maps_refuse_what_does_not_end(name: str, endless: Path) -> None:
    """Every format of maps refuses it, and so does the look that tells formats apart."""
    with pytest.raises(PlacementError) as caught:
        MAP_FORMATS[name].read(endless, model=LITE, ranks=8)
    assert str(caught.value) == f"{endless}: {REFUSED}"
    assert peek(endless).damage == REFUSED


def test_configurations_and_arrays_refuse_it(endless: Path) -> None:
    """A config.json and choices read in chunks are regular files, too."""
    with pytest.raises(WorkloadError, match=REFUSED):
        read_config(endless)
    with pytest.raises(WorkloadError, match=REFUSED):
        read_chunks(endless, LITE)


def test_stored_traces_refuse_it(tmp_path: Path) -> None:
    """The files of a stored trace are looked at before they are opened."""
    os.mkfifo(tmp_path / "meta.json")
    with pytest.raises(WorkloadError, match=REFUSED):
        StoredTrace.open(tmp_path)


def test_files_pass_and_folders_are_left_to_who_opens_them(tmp_path: Path) -> None:
    """Only what may never end is refused here; links to files are files."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link", "."):
        check_regular(tmp_path / name)
