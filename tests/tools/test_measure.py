"""Models evaluated alone: the same numbers as the workflow's verbs, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pandas as pd
import pytest
from runs import configured, moved
from typer.testing import CliRunner

from quark.cli import app
from quark.config import Config, ConfigError, for_task
from quark.core import files
from quark.data import fetch_model, fetch_prompts
from quark.stages import derive
from quark.stages.sample import sample_stage
from quark.tools.export import export
from quark.tools.measure import measure

TOXIC = "toxicity"


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(Path(__file__).parents[2])
    found: Config = configured("llama", "linear")
    return found


def another(config: Config, out: Path) -> Path:
    """A model with other weights, in a plain directory without our manifest."""
    tiny = config.models["tiny-gpt2"]
    assert tiny.random is not None
    other = tiny.random.model_copy(update={"seed": 1})
    fetch_model("other", tiny.model_copy(update={"random": other}), out)
    (out / "manifest.json").unlink()
    return out


def test_two_models_side_by_side(config: Config, tmp_path: Path) -> None:
    other = another(config, tmp_path / "other")
    out, resources = tmp_path / "out", tmp_path / "resources"
    rows = measure(config, TOXIC, ["tiny-gpt2", str(other)], out, resources=resources)
    task = config.tasks[TOXIC]
    assert [(row["split"], row["method"]) for row in rows] == [
        (split, name) for split in task.splits for name in ("tiny-gpt2", "other")
    ]
    for row in rows:
        alone = row["method"] == "tiny-gpt2"
        assert row["compared_with"] == (None if alone else "tiny-gpt2")
        assert (row["output_ppl_difference"] is None) == alone
        assert row["n_generations"] == row["n_prompts"] * config.evaluation.samples
        assert 0 <= float(row["avg_max_toxicity"]) <= 1
    assert json.loads((out / "table.json").read_text())["rows"] == rows
    # the same generations as the verb of a run
    split = task.splits[0]
    place = config, TOXIC, "base", 1, split, "nucleus"
    again = tmp_path / "generations.parquet"
    prompts = resources / "prompts" / task.prompts / f"{split}.parquet"
    model = resources / "models/tiny-gpt2"
    sample_stage(derive.generate(*place), prompts, model, [], again, 8000)
    found = out / TOXIC / "tiny-gpt2/seed-1/evaluation" / split / "nucleus/generations.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(found), pd.read_parquet(again))


def test_own_prompts_from_the_command_line(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("So I started\n\nYou are such a\nSo I started\n")
    out = tmp_path / "out"
    command = ["measure", "tiny-gpt2", "--out", str(out), "--prompts", str(file)]
    command += ["--config", "config/scale/test.yaml", "--results", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--resources", str(tmp_path / "resources")])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out / "table.csv")
    assert list(table["split"]) == ["prompts"] and list(table["n_prompts"]) == [2]
    assert "tiny-gpt2" in done.stdout


def test_a_task_with_real_continuations(config: Config, tmp_path: Path) -> None:
    rows = measure(
        config, "repetition", ["tiny-gpt2"], tmp_path / "out", resources=tmp_path / "resources"
    )
    assert {row["decoding"] for row in rows} == set(
        derive.decodings(for_task(config, "repetition"), "base")
    )
    assert all(row["acc"] is not None for row in rows)


@pytest.mark.parametrize(
    ("models", "error"),
    [
        (["nowhere"], "nowhere: no such directory, no model of the configuration, and no name"),
        (["one/tiny", "two/tiny"], "one/tiny and two/tiny are both tiny: write NAME=MODEL"),
        (["own/model@main"], r"(?s)own/model@main: .*a branch or tag can move"),
        (["own/.."], r"own/\.\.: '\.\.' cannot name a row"),
    ],
)
def test_what_cannot_be_measured_is_named(
    models: list[str], error: str, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=error):
        measure(config, TOXIC, models, tmp_path / "out", resources=tmp_path / "resources")


def test_a_row_can_have_another_name_and_every_own_prompt_counts(
    config: Config, tmp_path: Path
) -> None:
    other, resources = another(config, tmp_path / "a@b/tiny-gpt2"), tmp_path / "resources"
    file = tmp_path / "mine.txt"
    file.write_text("So I started\nYou are such a\nThe man\n")
    few = config.evaluation.model_copy(update={"prompts": 1, "samples": 2})
    limited = config.model_copy(update={"evaluation": few})
    models = ["tiny-gpt2", f"second={other}"]
    rows = measure(limited, TOXIC, models, tmp_path / "out", resources=resources, prompts=file)
    assert [row["method"] for row in rows] == ["tiny-gpt2", "second"]
    assert {row["n_prompts"] for row in rows} == {3}


def test_what_was_fetched_from_another_source_is_refused(config: Config, tmp_path: Path) -> None:
    resources = tmp_path / "resources"
    place = resources / "models/tiny-gpt2"
    tiny = config.models["tiny-gpt2"]
    assert tiny.random is not None
    other = tiny.random.model_copy(update={"seed": 5})
    fetch_model("tiny-gpt2", tiny.model_copy(update={"random": other}), place)
    with pytest.raises(ConfigError, match="comes from another source than the configuration says"):
        measure(config, TOXIC, ["tiny-gpt2"], tmp_path / "out", resources=resources)


def test_what_a_run_fetched_is_used(config: Config, tmp_path: Path) -> None:
    """A run fetches prompts without the keys that change nothing in them (`derive.unsorted`)."""
    name, resources = config.tasks[TOXIC].prompts, tmp_path / "resources"
    told = config.prompts[name].model_copy(update={"roughly": 40})
    counted = config.model_copy(update={"prompts": config.prompts | {name: told}})
    fetch_prompts(name, derive.unsorted(told), resources / "prompts" / name)
    rows = measure(counted, TOXIC, ["tiny-gpt2"], tmp_path / "out", resources=resources)
    assert [row["method"] for row in rows] == ["tiny-gpt2"] * len(config.tasks[TOXIC].splits)


def test_an_export_whose_tokenizer_adds_the_reward_token_is_refused(
    config: Config, tmp_path: Path
) -> None:
    moved(tmp_path, "gpt2", "embedding")
    own = configured("gpt2", "embedding")
    places = tmp_path / "results", tmp_path / "resources", tmp_path / "exported"
    export(own, TOXIC, "quark", 1, *places)
    with pytest.raises(ConfigError, match=r"exported: its tokenizer puts <\|quark\|> before each"):
        measure(own, TOXIC, [str(places[2])], tmp_path / "out", resources=places[1])


def test_nothing_is_overwritten(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists: name another directory"):
        measure(config, TOXIC, ["tiny-gpt2"], tmp_path, resources=tmp_path / "resources")


def test_a_repository_is_taken_at_its_newest_commit(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a stand-in: no test reaches it."""
    commit = "a" * 40
    asked: list[Any] = []

    class Hub:
        def model_info(self, repository: str) -> SimpleNamespace:
            asked.append(repository)
            return SimpleNamespace(sha=commit)

    def snapshot(repository: str, *, revision: str, **_: Any) -> str:
        asked.append(revision)
        return str(another(config, tmp_path / "snapshot"))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    out = tmp_path / "out"
    measure(config, TOXIC, ["own/model"], out, resources=tmp_path / "resources")
    assert asked == ["own/model", commit]
    source = files.read_json(out / "models/model/manifest.json")["source"]
    assert source["hub"] == {"repository": "own/model", "revision": commit}


def test_a_hub_that_does_not_answer_is_named(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub:
        def model_info(self, repository: str) -> SimpleNamespace:
            raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    with pytest.raises(ConfigError, match="own/model: the hub gives no commit: Name or service"):
        measure(config, TOXIC, ["own/model"], tmp_path / "out", resources=tmp_path / "resources")
