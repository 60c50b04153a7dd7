"""Base model and Quark side by side."""

import io
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console
from runs import moved
from safetensors.torch import load_file
from typer.testing import CliRunner

from quark.cli import app
from quark.config import ConfigError
from quark.core.files import verify
from quark.models.checkpoint import read_about
from quark.models.decode_state import PromptLengthError
from quark.tools import demo as trying
from quark.tools.demo import Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    config, _ = moved(tmp_path, "gpt2", "linear")
    places = tmp_path / "results", tmp_path / "resources"
    return Trial(config, "toxicity", "quark", 1, *places)


def test_both_write_and_the_best_comes_first(trial: Trial) -> None:
    table = trial.table("So I [bold]started\x1b[2J", 4)
    assert [column.header for column in table.columns] == ["reward", "base", "reward", "quark"]
    for rewards in (list(table.columns[0].cells), list(table.columns[2].cells)):
        assert len(rewards) == 4 and rewards == sorted(rewards, reverse=True)
        assert all(0 <= float(value) <= 1 for value in rewards)
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    assert "So I [bold]started\ufffd[2J" in console.file.getvalue()  # no markup, no control


def test_words_of_low_reward_are_marked(trial: Trial) -> None:
    marked = trial._marked("you stupid bitch, a nice day").markup
    assert marked == "you [bold red]stupid[/bold red] [bold red]bitch,[/bold red] a nice day"
    assert trial._marked("").markup == ""


def test_a_service_is_not_asked_for_words(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.scorer, "name", "perspective")
    assert trial._marked("stupid").markup == "stupid"


def test_the_picture_shows_the_table_and_loads_nothing(trial: Trial) -> None:
    made = trying.picture(trial.table("a b", 1), "quark try", 60)
    shown = ElementTree.fromstring(made)
    text = " ".join("".join(shown.itertext()).split())
    assert "quark try" in text and "reward" in text
    assert "url(" not in made.replace("url(#", "") and "font-face" not in made


def test_each_trial_draws_anew(trial: Trial) -> None:
    one, two = (list(map(str, trial.table("a b", 3).columns[1].cells)) for _ in range(2))
    assert one != two


def test_an_empty_prompt_is_refused(trial: Trial) -> None:
    with pytest.raises(PromptLengthError, match="has 0 tokens"):
        trial.table("", 1)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    config, _ = moved(tmp_path, "gpt2", "linear")
    with pytest.raises(ConfigError, match="seed-2/iteration-1/checkpoint: not trained yet"):
        Trial(config, "toxicity", "quark", 2, tmp_path / "results", tmp_path / "resources")


def test_before_any_run_it_is_the_one_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = moved(tmp_path, "gpt2", "linear")
    checkpoint = tmp_path / "results/toxicity/quark/seed-1/iteration-1/checkpoint"
    shutil.copytree(checkpoint, tmp_path / "trained/toxicity")
    monkeypatch.setattr(trying, "TRAINED", tmp_path / "trained")
    places = tmp_path / "results", tmp_path / "resources"
    own = Trial(config, "toxicity", "quark", 1, *places)
    assert own.checkpoint == checkpoint
    shutil.rmtree(tmp_path / "results/toxicity")
    trial = Trial(config, "toxicity", "quark", 1, *places, place=0.0)
    assert trial.checkpoint == tmp_path / "trained/toxicity"


def test_the_place_moves_the_law(tmp_path: Path) -> None:
    config, _ = moved(tmp_path, "gpt2", "linear")
    places = tmp_path / "results", tmp_path / "resources"
    distributions = []
    for place in (0.0, 1.0, 3.0):
        trial = Trial(config, "toxicity", "quark", 1, *places, place=place)
        with torch.no_grad():
            distributions += [each.read([[5, 6]]).next_token() for each in trial.decoders.values()]
    base, zero, _, one, _, three = (distribution.logits for distribution in distributions)
    assert torch.equal(base.float(), zero)  # place 0 is the base model
    assert not torch.equal(base, one) and not torch.equal(one, three)
    assert (
        distributions[3].nucleus_of is None and distributions[5].nucleus_of is not None
    )  # 1 is the policy itself


def test_the_checkpoint_of_the_package_is_whole() -> None:
    folder = trying.TRAINED / "toxicity"
    verify(folder / "policy.safetensors", folder / "checkpoint.json", target=folder)
    tensors = load_file(folder / "policy.safetensors")
    assert tensors["reward_tokens.map"].shape == (576, 576)  # the width of SmolLM2-135M
    assert read_about(folder)["reward_tokens"]["form"] == "linear"


def test_without_a_prompt_it_asks_until_an_empty_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Echo:
        checkpoint = Path("results")

        def __init__(self, *run: object) -> None: ...

        def table(self, prompt: str, samples: int) -> str:
            asked.append(prompt)
            if prompt == "too long":
                raise PromptLengthError("prompt it: has 9 tokens, room is for 8")
            return prompt

    monkeypatch.setattr("quark.tools.demo.Trial", Echo)
    monkeypatch.chdir(Path(__file__).parents[2])
    ran = CliRunner().invoke(app, ["try"], input="one\ntoo long\ntwo words\n\n")
    assert ran.exit_code == 0, ran.output
    assert asked == ["one", "too long", "two words"]
    assert "room is for 8" in ran.output
