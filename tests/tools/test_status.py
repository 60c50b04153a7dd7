"""How far runs are, from files alone."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from runs import configured

from quark.config import ConfigError
from quark.core import files
from quark.stages import derive
from quark.tools.status import last_checkpoint, made_by, progress, status, unfinished

ROOT = Path(__file__).parents[2]
RUN = "toxicity/quark/seed-1"


def touch(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Quark is in its second iteration, whose training died; the base model is half evaluated."""
    results, logs = tmp_path / "results", tmp_path / "logs"
    touch(results / RUN / "iteration-0/training.json")  # its checkpoint was cleaned up
    touch(results / RUN / "iteration-1/samples.parquet")
    touch(logs / RUN / "iteration-0/train.log", "done")
    touch(logs / RUN / "iteration-1/sample.log", "done")
    touch(logs / RUN / "iteration-1/train.log", "\n".join(f"line {i}" for i in range(9)))
    touch(results / "toxicity/base/seed-1/evaluation/nontoxic/nucleus/metrics.json")
    touch(logs / "models.log", "of no stage")
    return tmp_path


def folders(root: Path) -> list[Path]:
    return [root / name for name in ("results", "resources", "logs")]


def shown(folder: Path) -> str:
    console = Console(width=200, file=io.StringIO())
    over = [Path("config/own.yaml")]
    console.print(status(configured("gpt2", "linear"), *folders(folder), laid_over=over))
    return console.file.getvalue()


def test_iterations_and_evaluations_are_counted(folder: Path) -> None:
    found = {run.method: run for run in progress(configured("gpt2", "linear"), folder / "results")}
    assert found["quark"].iterations == (1, 2)
    assert found["quark"].evaluations == (0, 2)
    assert found["base"].iterations == (0, 0)
    assert found["base"].evaluations == (1, 2)


def test_what_stopped_is_named_with_its_last_lines_and_the_command(folder: Path) -> None:
    (stage,) = unfinished(*folders(folder))
    target = folder / "results" / RUN / "iteration-1/training.json"
    assert stage.target == target
    assert stage.lines == [f"line {i}" for i in range(4, 9)]
    assert stage.command() == f"snakemake --cores all {target}"
    text = shown(folder)
    assert "iteration-1/training.json --configfile config/own.yaml" in text
    assert "1 of 2" in text and "line 8" in text and "line 3" not in text


def test_how_long_the_run_takes_is_told(folder: Path) -> None:
    touch(folder / "results/progress.json", '{"line": "3 of 9 jobs done"}')
    assert "The last run: 3 of 9 jobs done" in shown(folder)


def test_the_latest_comes_first(folder: Path) -> None:
    import os

    old = folder / "logs" / RUN / "evaluation/nontoxic/nucleus/judge.log"
    touch(old)
    os.utime(old, (0, 0))
    names = [stage.log.stem for stage in unfinished(*folders(folder))]
    assert names == ["train", "judge"]
    assert "(it is empty)" in shown(folder)


def test_nothing_has_run_yet(tmp_path: Path) -> None:
    assert "Nothing has run yet" in shown(tmp_path)


def test_a_fetch_or_a_shard_that_stopped_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "logs/fetch_model/mine.log", "no network")
    touch(tmp_path / "logs" / RUN / "iteration-0/sample-2-of-8.log", "killed")
    found = {stage.log.stem: stage.target for stage in unfinished(*folders(tmp_path))}
    assert found == {
        "mine": tmp_path / "resources/models/mine",
        "sample-2-of-8": tmp_path / "results" / RUN / "iteration-0/samples.parquet",
    }
    assert "no network" in shown(tmp_path)


def test_what_ends_a_run_is_named_too(tmp_path: Path) -> None:
    touch(tmp_path / "logs" / RUN / "track.log", "no disk")
    touch(tmp_path / "logs/toxicity/figures/tradeoff.log")
    found = {stage.log.stem: stage.target for stage in unfinished(*folders(tmp_path))}
    assert found == {
        "track": tmp_path / f"results/tracking/{RUN}.json",
        "tradeoff": tmp_path / "results/figures/toxicity/tradeoff.svg",
    }


FOLDERS = {
    "ITERATION": "results/{task}/{method}/seed-{seed}/iteration-{iteration}",
    "VARIED_PART": "results/{task}/{method}/part-{part}/seed-{seed}",
    "PART": "results/{task}/part-{part}/seed-{seed}",
    "CORPUS": "results/{task}/corpus/seed-{seed}",
    "PREDICTED": "results/{task}/{method}/seed-{seed}/evaluation/{split}",
    "EVALUATION": "results/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}",
}
"""Of `common.smk`."""


def test_every_log_of_the_rules_tells_of_an_output_of_its_rule() -> None:
    rules = "".join(file.read_text() for file in sorted((ROOT / "workflow/rules").glob("*.smk")))
    for name, folder in FOLDERS.items():
        rules = rules.replace(f"{{{name}}}", folder)
    seen = 0
    for rule in re.split(r"^ *(?:use )?(?:local)?rule ", rules, flags=re.MULTILINE)[1:]:
        log = re.search(r'"logs/([^"]+)\.log"', rule)
        if log is None:
            continue
        seen += 1
        made = made_by(re.sub(r"-\{shard\}$", "", log[1]))
        assert made is not None, rule
        if "{shard}" not in log[1]:  # a shard makes a part of it
            assert f'"{made}"' in rule or f'{made}"' in rule.replace("{{", "{"), (made, rule)
    assert seen > 40


def test_a_name_that_a_stage_has_too_is_no_stage() -> None:
    assert made_by("fetch_model/train") == "resources/models/train"
    assert made_by("figures/ablations/curves") == "results/figures/ablations/curves.svg"


def test_the_last_checkpoint_is_of_the_last_iteration_and_of_this_configuration(
    folder: Path,
) -> None:
    checkpoint = folder / "results" / RUN / "iteration-1/checkpoint"
    config = configured("gpt2", "linear")
    run = config, "toxicity", "quark", 1, folder / "results"
    with pytest.raises(ConfigError, match="iteration-1/checkpoint: not trained yet"):
        last_checkpoint(*run)
    own = derive.train(config, "toxicity", "quark", 1, 1).model_dump(mode="json")
    files.write_json(checkpoint / "checkpoint.json", {"settings": own})
    assert last_checkpoint(*run) == checkpoint
    own["training"]["kl_coef"] = 7.0
    files.write_json(checkpoint / "checkpoint.json", {"settings": own})
    with pytest.raises(ConfigError, match=r"training\.kl_coef 7\.0, not 0\.\d+.*--config"):
        last_checkpoint(*run)
