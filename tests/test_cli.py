"""The command line, as a user or a rule calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import quark as quark_package
from quark import cli
from quark.config import ConfigError, load

ROOT = Path(__file__).parents[1]
VERBS = {
    (command.name or command.callback.__name__).replace("_", "-"): command.callback
    for command in cli.app.registered_commands
}


def quark(monkeypatch, *arguments):
    """Run `quark` in this process; return what `sys.exit` was given."""
    monkeypatch.setattr(sys, "argv", ["quark", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code


def test_every_verb_stands_in_the_list():
    listed = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).output
    assert len(VERBS) == len(cli.app.registered_commands) >= 30
    assert all(verb in listed for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    wide = {"COLUMNS": "200", "TERM": "dumb"}
    found = CliRunner().invoke(cli.app, [verb, "--help"], env=wide)
    assert found.exit_code == 0
    assert VERBS[verb].__doc__.strip() in found.output


def test_the_version_is_the_package_s():
    found = CliRunner().invoke(cli.app, ["--version"])
    assert (found.exit_code, found.output) == (0, f"quark {quark_package.__version__}\n")


def test_the_installed_command_prints_a_fault_without_traceback():
    """As the rules call it: one line that names the file, and an exit status that is not 0."""
    found = subprocess.run(
        [Path(sys.executable).with_name("quark"), "score", "--settings",
         '{"scorer": "profanity-check"}', "--samples", "gone.parquet", "--out", "scores.parquet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1 and found.stdout == ""
    assert found.stderr == "quark: TableError: gone.parquet: no such file\n"


def test_costs_of_more_stages_than_a_shell_command_has_room_for(monkeypatch, tmp_path):
    """Linux takes at most 131 072 bytes in one argument, and a rule's command is one."""
    stages = [tmp_path / f"toxicity/quark/seed-{seed}/scores.json" for seed in range(2000)]
    for file in stages:
        file.parent.mkdir(parents=True)
        file.write_text('{"rows": 2}')
    listed, out = tmp_path / "stages.txt", tmp_path / "costs.csv"
    listed.write_text("\n".join(map(str, stages)))
    assert listed.stat().st_size > 131_072
    assert quark(monkeypatch, "costs", "--stages", listed, "--out", out) == 0
    assert out.read_text().splitlines()[-1].startswith("total,,,,4000,")
    stages[-1].unlink()
    said = quark(monkeypatch, "costs", "--stages", listed, "--out", out)
    assert said == f"quark: TableError: {stages[-1]}: no such file"


def test_a_misspelt_key_is_named_with_its_file(monkeypatch, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("{quark: {iteration: 7}}")
    said = quark(monkeypatch, "show", "--config", ROOT / "config/config.yaml", "--config", over)
    assert said.startswith("quark: ConfigError: ")
    assert f"{over}: quark.iteration = 7: no such key; did you mean quark.iterations?" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{tasks: {toxicity: {scorer: profanity-chek}}}",
            "ScorerError: tasks.toxicity.scorer: no scorer 'profanity-chek'; did you mean "
            "'profanity-check'?",
        ),
        (
            "{tasks: {toxicity: {second_scorer: toxblock}}}",
            "ScorerError: tasks.toxicity.second_scorer: no scorer 'toxblock'; did you mean "
            "'tox-block'?",
        ),
        (
            "{prompts: {rtp: {scorer: tox-block}}}",  # prompts are scored before any model is there
            "ScorerError: prompts.rtp.scorer: no scorer 'tox-block'; did you mean",
        ),
        (
            "{prompts: {sentences: {sorted: {scorer: vadr}}}}",
            "ScorerError: prompts.sentences.sorted.scorer: no scorer 'vadr'; did you mean 'vader'?",
        ),
    ],
)
def test_an_unknown_scorer_is_named_with_its_key(monkeypatch, tmp_path, text, expected):
    over = tmp_path / "over.yaml"
    over.write_text(text)
    assert quark(monkeypatch, "show", "--config", over).startswith(f"quark: {expected}")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ('{"scorr": "profanity-check"}', "scorr"),
        ('{"scorer": 1}', "scorer"),
        ('{"scorer": "profanity-check", "threads": 2}', "threads"),
        ("{", "JSON"),
    ],
)
def test_wrong_settings_are_named_before_any_work(monkeypatch, tmp_path, settings, fault):
    out = tmp_path / "scores.parquet"
    said = quark(
        monkeypatch, "score", "--settings", settings, "--samples", "gone.parquet", "--out", out
    )
    assert said.startswith(f"quark: ConfigError: --settings {settings}: ") and fault in said
    assert "gone.parquet" not in said and not out.exists()


def test_a_fault_without_explanation_keeps_its_traceback(monkeypatch, tmp_path):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr("quark.stages.score.score_stage", broken)
    arguments = ["--settings", '{"scorer": "x"}', "--samples", "s", "--out", str(tmp_path / "o")]
    monkeypatch.setattr(sys, "argv", ["quark", "score", *arguments])
    with pytest.raises(ValueError, match="a bug"):
        cli.main()


TRAIN = (
    "train", "--settings", "{}", "--pool", "pool.parquet", "--model", "model", "--out", "out",
    "--processes", "2", "--threads", "5", "--memory-mb", "9001",
)  # fmt: skip


def test_several_processes_are_started_with_the_same_words(monkeypatch):
    started = []

    def execv(program, command):
        started.append(command)
        raise SystemExit

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("os.execv", execv)
    quark(monkeypatch, *TRAIN, "--debug")
    (command,) = started
    assert command[command.index("quark.cli") + 1 :] == [*TRAIN, "--debug"]


def test_several_processes_share_threads_and_memory(monkeypatch):
    found = []
    monkeypatch.setenv("RANK", "0")  # as torchrun does
    monkeypatch.setattr(cli.methods, "use_threads", found.append)
    monkeypatch.setattr(cli.methods, "parse", lambda *_: None)
    monkeypatch.setattr("quark.stages.train.train_stage", lambda *files: found.append(files[-2]))
    assert quark(monkeypatch, *TRAIN) == 0
    assert found == [2, 4500]


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_keeps_the_traceback_wherever_it_stands(monkeypatch, place):
    words = ["show", "--config", "gone.yaml"]
    monkeypatch.setattr(sys, "argv", ["quark", *words[:place], "--debug", *words[place:]])
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        cli.main()


def test_show_prints_a_part_of_the_merged_configuration():
    files = [str(ROOT / "config/config.yaml"), str(ROOT / "config/scale/test.yaml")]
    options = [word for file in files for word in ("--config", file)]
    found = CliRunner().invoke(cli.app, ["show", "quark.training", *options])
    assert json.loads(found.output) == load(files).quark.training.model_dump(mode="json")


def test_show_names_a_part_that_does_not_exist(monkeypatch):
    config = ROOT / "config/config.yaml"
    said = quark(monkeypatch, "show", "quark.trainin", "--config", config)
    assert said == "quark: ConfigError: quark.trainin: no such part; there is no 'trainin'"


def test_schema_writes_the_file_that_is_checked_in(tmp_path):
    out = tmp_path / "schema.json"
    found = CliRunner().invoke(cli.app, ["schema", "--out", str(out)])
    assert found.exit_code == 0
    assert out.read_text() == (ROOT / "workflow/schemas/config.schema.json").read_text()
    again = tmp_path / "schema.yaml"
    assert CliRunner().invoke(cli.app, ["schema", "--out", str(again)]).exit_code == 0
    assert again.read_text() == (ROOT / "workflow/schemas/config.schema.yaml").read_text()
    assert yaml.safe_load(again.read_text()) == json.loads(out.read_text())


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_a_table_in_the_terminal_cuts_no_word(tmp_path, width):
    """However narrow the terminal is; the rows are those of a finished run."""
    (tmp_path / "tables").mkdir()
    kept = ROOT / "docs/results/toxicity_short-2026-11-26.csv"
    (tmp_path / "tables/toxicity.csv").write_bytes(kept.read_bytes())
    wide = {"COLUMNS": width, "TERM": "dumb"}
    found = CliRunner().invoke(cli.app, ["table", "toxicity", "--results", str(tmp_path)], env=wide)
    assert found.exit_code == 0 and "\N{HORIZONTAL ELLIPSIS}" not in found.output
    words = ("challenging", "toxicity", "0.641", "[0.593,", "0.688]", "25.10", "0.873")
    assert all(word in found.output for word in words)
