"""Faults as run files give them."""

from __future__ import annotations

import tomllib

import pytest

from experiments.errors import ExperimentError
from experiments.spec import RunSpec
from experiments.tables import resolve


def run_spec(faults: str) -> RunSpec:
    """Return a run file with some faults, resolved."""
    return resolve(RunSpec, tomllib.loads('cluster = "fat-tree"\n' + faults), "run.toml")


def test_faults_in_a_run_file() -> None:
    """A link slows, dies and is back; a GPU is dead: speeds as the simulator takes them."""
    spec = run_spec(
        """
        [[faults]]
        at_s = 0
        gpu = 3
        dead = true
        [[faults]]
        at_s = 1e-3
        link = "gpu0->switch0"
        slow = 0.5
        [[faults]]
        at_s = 2e-3
        link = [0, 96]
        dead = true
        [[faults]]
        at_s = 3e-3
        link = 7
        back = true
        """
    )
    assert [each.speed for each in spec.faults] == [0.0, 0.5, 0.0, 1.0]
    assert [each.link for each in spec.faults] == [None, "gpu0->switch0", (0, 96), 7]
    assert run_spec("").faults == ()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("at_s = 0", "one 'link' or one 'gpu'"),
        ("at_s = 0\nlink = 1\ngpu = 1\ndead = true", "one 'link' or one 'gpu'"),
        ("at_s = 0\nlink = 1", "give one of slow = SHARE, dead = true or back = true"),
        ("at_s = 0\nlink = 1\nslow = 0.5\ndead = true", "give one of"),
        ("at_s = 0\ngpu = 1\nslow = 0.5", "a GPU is dead or back"),
        ("at_s = -1\nlink = 1\ndead = true", "faults.0.at_s"),
        ("at_s = 0\nlink = 1\nslow = 0.0", "faults.0.slow"),
        ("at_s = 0\nlink = 1\nslow = 1.0", "faults.0.slow"),
        ("at_s = 0\nlink = 1\ndown = true", "unknown key 'down'; allowed: at_s, link, gpu"),
    ],
)
def test_what_is_no_fault_is_refused(fault: str, message: str) -> None:
    """One line with the place and what was expected."""
    with pytest.raises(ExperimentError, match=message) as caught:
        run_spec(f"[[faults]]\n{fault}\n")
    assert "\n" not in str(caught.value)
