"""The store of runs: its files, their versions and damage, and who may write."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sweep_stub import Notes, done, drive, made_plan

from experiments.errors import ExperimentError, RunError
from experiments.sweeping import (
    DamagedError,
    VersionError,
    collect,
    create_store,
    driver,
    identify,
    open_store,
)
from experiments.sweeping.claims import Claims
from experiments.sweeping.record import decode, encode
from experiments.sweeping.reserve import Reserve
from experiments.sweeping.store import MARK, WriteError
from experiments.sweeping.work import Job, parquet

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.sweeping import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return create_store(tmp_path / "store")


def put(store: Store, runs: int = 1, tables: tuple[str, ...] = ()) -> list[str]:
    """Store made-up runs and return their ids."""
    for run in made_plan(runs).runs:
        found = done(Job(run.run_id, run.spec, tables))
        store.write(run.run_id, found.record, found.provenance, found.arrays)
    return [run.run_id for run in made_plan(runs).runs]


def test_what_is_written_is_read(store: Store) -> None:
    """Spec, inputs and figures come back; seconds stand apart."""
    run_id = put(store)[0]
    record = store.read(run_id)
    identity = identify(made_plan(1).runs[0].spec)
    assert (record.run_id, record.spec) == (run_id, identity.spec)
    assert record.inputs == identity.inputs
    assert record.metrics == {"policy": "stub", "value": 0.0}
    assert store.provenance(run_id)["run_s"] == 0.01
    assert b"run_s" not in (store.folder / "runs" / f"{run_id}.json").read_bytes()
    assert store.ids() == [run_id]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is no JSON"),
        (lambda _: "", "is no JSON"),
        (lambda _: "[" * 100_000, "is no JSON"),
        (lambda _: "[]", "is not of the format 'topomoe-run'"),
        (lambda text: text.replace('"stub"', '"stab"'), "does not match its hashes"),
        (lambda text: text.replace('"tp": 1', '"tp": 2'), "does not match its hashes"),
        (lambda text: text.replace('"metrics":', '"matrix":'), "has no 'metrics'"),
        (lambda text: text.replace("topomoe-run", "topomoe-map"), "is not of the format"),
    ],
)
def test_damage_is_noticed(store: Store, change: Any, message: str) -> None:
    """Whatever happens to a file of a run, one line names it."""
    run_id = put(store)[0]
    path = store.folder / "runs" / f"{run_id}.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DamagedError, match=message) as caught:
        store.read(run_id)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_under_another_name_is_damage(store: Store) -> None:
    """A file that was copied over another one is noticed."""
    one, two = put(store, 2)
    path = store.folder / "runs" / f"{one}.json"
    path.write_bytes((store.folder / "runs" / f"{two}.json").read_bytes())
    with pytest.raises(DamagedError, match="expected that of its name"):
        store.read(one)


def test_damaged_runs_are_set_aside_and_run_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is kept under damaged/, named, and the run done again; others are not."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    ids = put(store, 3)
    for _ in range(2):
        broken = store.folder / "runs" / f"{ids[1]}.json"
        whole = broken.read_bytes()
        broken.write_bytes(whole[:100])
        tally, notes = drive(store, made_plan(3), workers=1)
        assert (tally.before, tally.done) == (2, 1)
        assert broken.read_bytes() == whole
        assert len(notes.lines) == 1
        assert str(broken) in notes.lines[0]
    assert sorted(path.name for path in (store.folder / "damaged").iterdir()) == [
        f"{ids[1]}.1.json",
        f"{ids[1]}.json",
    ]
    log = (tmp_path / "log").read_text().splitlines()
    assert {line.split()[1] for line in log} == {ids[1]}


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.0, True])
def test_other_versions_are_refused_by_name(store: Store, version: object) -> None:
    """A version that is not known is said, of a run as of a store, and nothing is set aside."""
    run_id = put(store)[0]
    path = store.folder / "runs" / f"{run_id}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"version": version}))
    with pytest.raises(VersionError, match=r"is of version .*; this topomoe reads versions 1 to 1"):
        store.read(run_id)
    with pytest.raises(VersionError):
        driver.run_sweep(made_plan(1), store, None, Notes())
    assert path.exists()
    mark = {"format": "topomoe-store", "version": version}
    (store.folder / MARK).write_text(json.dumps(mark))
    for opening in (open_store, create_store):
        with pytest.raises(VersionError, match=MARK):
            opening(store.folder)


def test_records_are_their_own_proof() -> None:
    """What `encode` wrote `decode` reads, and the same run gives the same bytes."""
    identity = identify(made_plan(1).runs[0].spec)
    text = encode(identity, {"a": 0.1, "b": None, "c": [1, 2]})
    assert text == encode(identify(made_plan(1).runs[0].spec), {"a": 0.1, "b": None, "c": [1, 2]})
    assert decode(text.encode(), "x").metrics == {"a": 0.1, "b": None, "c": [1, 2]}
    with pytest.raises(ValueError, match="JSON compliant"):
        encode(identity, {"a": float("nan")})


def test_tables_go_beside_the_run(store: Store) -> None:
    """Tables are read back; one that is missing or cut is asked for again."""
    run_id = made_plan(1).runs[0].run_id
    frame = pd.DataFrame({"link": [0, 1], "class": ["nic", "nvlink"], "busy_s": [0.5, 0.25]})
    found = done(Job(run_id, made_plan(1).runs[0].spec))
    store.write(run_id, found.record, {}, {"links": parquet(frame), "hops": parquet(frame)})
    assert list(store.arrays(run_id)) == ["links", "hops"]
    assert list(store.arrays(run_id, ["hops", "layers"])) == ["hops"]
    pd.testing.assert_frame_equal(store.arrays(run_id)["links"], frame)
    assert store.lacks(run_id, ("links", "layers")) == ["layers"]
    path = store.folder / "arrays" / f"{run_id}.links.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert store.lacks(run_id, ("links", "hops")) == ["links"]
    with pytest.raises(DamagedError, match=r"links\.parquet: is no Parquet file; remove it"):
        store.arrays(run_id)


def test_collect_is_tidy(store: Store) -> None:
    """A row per run; keys of the spec dotted, hashes of inputs, figures; ordered by id."""
    ids = put(store, 3)
    table = collect(store)
    assert table["run"].tolist() == sorted(ids)
    assert set(table["network.seed"]) == {0, 1, 2}
    assert (table["value"] == table["network.seed"] / 7).all()
    assert (table["placement.domains"] == "[]").all()
    assert len(set(table["sha256.cluster"])) == 1
    assert not [name for name in table if name.startswith("provenance")]
    assert collect(store, runs=ids[:1], provenance=True)["provenance.run_s"].tolist() == [0.01]


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    """A folder that is no store is neither read nor written."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ExperimentError, match="is a folder of something else"):
        create_store(tmp_path)
    with pytest.raises(ExperimentError, match=f"is no store of runs: has no {MARK}"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ExperimentError, match="cannot be written"):
        create_store(tmp_path / "thesis.tex" / "store")


def test_claims_are_exclusive_and_die_with_their_owner(tmp_path: Path) -> None:
    """One sweep has a run; when the lock of a sweep is gone, so are its claims."""
    one, two = Claims(tmp_path), Claims(tmp_path)
    assert (one.alone, two.alone) == (True, False)
    assert one.take("a")
    assert one.take("a")
    assert not two.take("a")
    one.drop("a")
    assert two.take("a")
    assert one.take("b")
    # The kernel lets go of the lock when a process ends; its files stay.
    os.close(one._file)
    assert two.take("b")
    assert sorted(path.name for path in (tmp_path / "owners").iterdir()) == [two._name]
    two.close()
    assert not list((tmp_path / "claims").iterdir())
    assert not list((tmp_path / "owners").iterdir())


def test_a_claim_without_an_owner_is_void(tmp_path: Path) -> None:
    """Who removes the files of owners by hand frees their claims."""
    one = Claims(tmp_path)
    (tmp_path / "claims" / "a").symlink_to("nobody")
    assert one.take("a")
    one.close()


def full(times: int) -> Any:
    """Return an fsync that finds the disk full so many times."""
    left = [times]

    def fsync(_file: int) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")

    return fsync


def test_a_full_disk_costs_no_finished_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space held back takes what was under way; the sweep stops with one line, and resumes."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    monkeypatch.setattr("experiments.atomic.os.fsync", full(1))
    with pytest.raises(RunError, match=r"No space left on device: \d+ of 30 runs are in") as caught:
        drive(store, made_plan(30))
    assert "lost" not in str(caught.value)
    ended = {
        line.split()[1]
        for line in (tmp_path / "log").read_text().splitlines()
        if line.startswith("end")
    }
    assert set(store.ids()) == ended
    assert 0 < len(ended) < 30
    tally, _ = drive(store, made_plan(30))
    assert (tally.before, tally.done) == (len(ended), 30 - len(ended))


def test_what_a_full_disk_does_cost_is_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the space held back does not help, the line says how many runs are lost."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    monkeypatch.setattr("experiments.atomic.os.fsync", full(1000))
    with pytest.raises(RunError, match=r"0 of 9 runs .*; [1-9] finished runs? (is|are) lost"):
        drive(store, made_plan(9))
    assert store.ids() == []


def test_no_space_to_hold_back_is_said_before_the_work(tmp_path: Path) -> None:
    """A disk that is full already stops a sweep before it starts."""
    with pytest.raises(ExperimentError, match="free some space"):
        Reserve(tmp_path / "reserve", 1 << 60)
    assert not (tmp_path / "reserve").exists()


def test_write_errors_are_those_of_the_store(store: Store) -> None:
    """A folder that is gone is said as such."""
    run_id = made_plan(1).runs[0].run_id
    (store.folder / "runs").rmdir()
    (store.folder / "runs").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        store.write(run_id, "", {}, {})


@pytest.mark.parametrize("name", ["runs", "provenance", "arrays", "failed", "claims", "owners"])
def test_every_folder_is_seen_to_before_the_work(store: Store, name: str) -> None:
    """A folder of a store that takes no files is named before the first run is done."""
    folder = store.folder / name
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(ExperimentError, match=f"{name}: cannot be made a folder") as caught:
        create_store(store.folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("damage", [b"", None])
def test_lost_provenance_is_none(store: Store, damage: bytes | None) -> None:
    """A run whose provenance is damaged or gone is collected with its figures, and without that."""
    one, two = put(store, 2)
    path = store.folder / "provenance" / f"{one}.json"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    table = collect(store, provenance=True).set_index("run")
    assert table["value"].notna().all()
    assert np.isnan(table.loc[one, "provenance.run_s"])
    assert table.loc[two, "provenance.run_s"] == 0.01
