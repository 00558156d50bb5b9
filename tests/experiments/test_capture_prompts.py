"""Files of prompts, and what `topomoe capture` refuses before a model is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.capture.prompts import Prompt, read_prompts
from experiments.cli import status
from experiments.errors import ExperimentError

GOLDEN = Path(__file__).parents[1] / "workloads" / "configs" / "OLMoE-1B-7B" / "config.json"


def test_lines_of_text(tmp_path: Path) -> None:
    """A line is a prompt, its inner blanks kept; blank lines count but are passed over."""
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffone  two\r\n\n \ndrei \u2028 vier\n".encode())
    assert read_prompts(file) == [Prompt("one  two", 1), Prompt("drei \u2028 vier", 4)]


def test_lines_of_json(tmp_path: Path) -> None:
    """Objects with a prompt, which may hold line breaks, and a domain in all lines or in none."""
    file = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "a\nb", "domain": "law"}, {"domain": "code", "prompt": "c"}]
    file.write_text("\n\n".join(map(json.dumps, lines)))
    assert read_prompts(file) == [Prompt("a\nb", 1, "law"), Prompt("c", 3, "code")]
    file.write_text('{"prompt": "a", "domain": null}\n{"prompt": "b"}')
    assert read_prompts(file) == [Prompt("a", 1), Prompt("b", 2)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.txt", b"", "holds no prompt; expected one a line"),
        ("p.txt", b"\n \n", "holds no prompt"),
        ("p.txt", b"a\n\xff", "line 2: not UTF-8"),
        ("p.jsonl", b"plain text", "line 1: not valid JSON"),
        ("p.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        ("p.jsonl", b"[1]", "line 1: expected an object with the keys prompt, domain"),
        ("p.jsonl", b'{"text": "a"}', "line 1: unknown key 'text'; allowed: prompt, domain"),
        ("p.jsonl", b'{"domain": "a"}', "line 1: key 'prompt': expected a text that is not blank"),
        ("p.jsonl", b'{"prompt": 1}', "key 'prompt': expected a text"),
        ("p.jsonl", b'{"prompt": " "}', "key 'prompt': expected a text that is not blank"),
        ("p.jsonl", b'{"prompt": "a", "domain": ""}', "key 'domain': expected a text"),
        ("p.jsonl", b'{"prompt": "\\ud800"}', "key 'prompt': holds half a surrogate pair"),
        (
            "p.jsonl",
            b'{"prompt": "a", "domain": "x"}\n{"prompt": "b"}',
            "line 2: no 'domain', unlike line 1; expected one in all lines or in none",
        ),
        (
            "p.jsonl",
            b'{"prompt": "a"}\n\n{"prompt": "b", "domain": "x"}',
            "line 3: 'domain', unlike line 1",
        ),
    ],
)
def test_wrong_prompts(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    """Each is refused in one line with the file and the line."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ExperimentError) as caught:
        read_prompts(tmp_path / name)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary() | st.text().map(str.encode), json_lines=st.booleans())
def test_any_bytes_give_prompts_or_one_line(tmp_path: Path, data: bytes, json_lines: bool) -> None:
    """Fuzzed files are read or refused with their name, never a traceback of another kind."""
    file = tmp_path / ("p.jsonl" if json_lines else "p.txt")
    file.write_bytes(data)
    try:
        prompts = read_prompts(file)
    except ExperimentError as error:
        said = str(error)
        prompts = []
    else:
        said = f"{file}: fine"
        assert all(prompt.text.strip() for prompt in prompts)
    assert said.startswith(f"{file}: ")
    assert "\n" not in said


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A folder with prompts, and a model without weights."""
    (tmp_path / "model").mkdir()
    shutil.copy(GOLDEN, tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("a b\n")
    return tmp_path


@pytest.mark.parametrize(
    ("model", "prompts", "out", "message"),
    [
        ("gone", "prompts.txt", "new.trace", "gone: expected the folder of a model"),
        ("prompts.txt", "prompts.txt", "new.trace", "prompts.txt: expected the folder of a model"),
        ("model", "gone.txt", "new.trace", "gone.txt: cannot be read"),
        ("model", "prompts.txt", "model", "model: is there already; expected a new folder"),
        ("model", "prompts.txt", "prompts.txt/x", "prompts.txt/x: cannot be written"),
        (".", "prompts.txt", "new.trace", "config.json: cannot be read"),
    ],
)
def test_wrong_paths(
    case: Path, model: str, prompts: str, out: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2, and nothing is left behind."""
    before = sorted(case.rglob("*"))
    words = ["--model", case / model, "--prompts", case / prompts, "--out", case / out]
    assert status(["capture", *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(case.rglob("*")) == before


def test_without_the_extra(case: Path) -> None:
    """Where PyTorch is absent one line says how to install it, and nothing is left behind."""
    code = (
        "import sys; sys.modules['torch'] = None; from experiments.cli import status;"
        "sys.exit(status(sys.argv[1:]))"
    )
    words = ["capture", "--model", "model", "--prompts", "prompts.txt", "--out", "new.trace"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=case,
        env={"PYTHONPATH": root},
    )
    assert done.returncode == 2
    assert "install the extra 'capture': pip install -e" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in case.iterdir()) == ["model", "prompts.txt"]
