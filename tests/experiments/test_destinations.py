"""Where results go: looked at before the work, whole afterwards, and nothing left behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from experiments.atomic import check_destinations, staged, write_atomic
from experiments.errors import ExperimentError

if TYPE_CHECKING:
    from pathlib import Path


def test_new_and_old_files_may_be_written(tmp_path: Path) -> None:
    """Files in folders that are there, or can be made, are fine; the look leaves no trace."""
    (tmp_path / "old.json").touch()
    check_destinations([tmp_path / "old.json", tmp_path / "a" / "b" / "new.json", None])
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder, a device, a file in the way and a NUL are refused."""
    blocked = tmp_path / "file"
    blocked.touch()
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is no regular file"),
        (blocked / "x.json", "cannot be written: .*file is no folder"),
        (tmp_path / "a\0b", "holds a NUL character"),
        (tmp_path / ("n" * 300), "File name too long"),
    ):
        with pytest.raises(ExperimentError, match=message):
            check_destinations([path])


def test_what_is_inside_a_folder_that_is_read(tmp_path: Path) -> None:
    """A stored trace is an input as a whole; beside it is fine."""
    folder = tmp_path / "x.trace"
    folder.mkdir()
    check_destinations([tmp_path / "new.json"], inputs=[folder])
    with pytest.raises(ExperimentError, match=r"topk.*: lies inside .*trace, which is read"):
        check_destinations([folder / "topk.npy"], inputs=[None, folder])


def test_outputs_that_collide(tmp_path: Path) -> None:
    """One file for two outputs, one as the other's folder, or an input's: refused."""
    one = tmp_path / "one.json"
    other = tmp_path / "sub" / ".." / "one.json"
    with pytest.raises(ExperimentError, match="two outputs"):
        check_destinations([one, other])
    with pytest.raises(ExperimentError, match="its folder is another output's file"):
        check_destinations([one, one / "hops.csv"])
    with pytest.raises(ExperimentError, match=r"one\.json: is both read and to be written"):
        check_destinations([one], inputs=[None, str(other)])


def test_interrupted_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a write removes the temporary file and keeps the old one."""
    path = tmp_path / "x.json"
    write_atomic(path, "old")

    def interrupt(_file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed(tmp_path: Path) -> None:
    """Writing to a symbolic link replaces the file it names."""
    link = tmp_path / "link.json"
    link.symlink_to("file.json")
    write_atomic(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "file.json").read_text() == "new"


def test_a_folder_changes_when_all_is_written(tmp_path: Path) -> None:
    """Staged files appear together at the end, and not at all after an error."""
    folder = tmp_path / "out"
    with staged(folder) as stage:
        write_atomic(stage / "a", "1")
        assert not (folder / "a").exists()
    assert (folder / "a").read_text() == "1"

    def interrupted() -> None:
        with staged(folder) as stage:
            write_atomic(stage / "a", "2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_text() for path in folder.iterdir()] == ["1"]
