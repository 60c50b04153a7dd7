"""Base model and Quark side by side."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from runs import moved
from typer.testing import CliRunner

from quark.cli import app
from quark.config import ConfigError
from quark.reading import PromptLengthError
from quark.trying import Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    config, _ = moved(tmp_path, "gpt2", "sink")
    places = tmp_path / "results", tmp_path / "resources"
    return Trial(config, "toxicity", "quark", 1, *places)


def test_both_write_and_the_best_comes_first(trial: Trial) -> None:
    table = trial.table("So I [bold]started", 4)
    model, reward, _ = (list(column.cells) for column in table.columns)
    assert model == ["base"] * 4 + ["quark"] * 4
    for rewards in (reward[:4], reward[4:]):
        assert rewards == sorted(rewards, reverse=True)
        assert all(0 <= float(value) <= 1 for value in rewards)
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    assert "So I [bold]started" in console.file.getvalue()  # no markup


def test_each_trial_draws_anew(trial: Trial) -> None:
    one, two = (list(map(str, trial.table("a b", 3).columns[2].cells)) for _ in range(2))
    assert one != two


def test_an_empty_prompt_is_refused(trial: Trial) -> None:
    with pytest.raises(PromptLengthError, match="has 0 tokens"):
        trial.table("", 1)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    config, _ = moved(tmp_path, "gpt2", "sink")
    with pytest.raises(ConfigError, match="seed-2/iteration-1/checkpoint: not trained yet"):
        Trial(config, "toxicity", "quark", 2, tmp_path / "results", tmp_path / "resources")


def test_without_a_prompt_it_asks_until_an_empty_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Echo:
        def __init__(self, *run: object) -> None: ...

        def table(self, prompt: str, samples: int) -> str:
            asked.append(prompt)
            return prompt

    monkeypatch.setattr("quark.trying.Trial", Echo)
    monkeypatch.chdir(Path(__file__).parents[1])
    assert CliRunner().invoke(app, ["try"], input="one\ntwo words\n\n").exit_code == 0
    assert asked == ["one", "two words"]
