"""What each verb depends on: all that changes its result, and nothing else."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from quark import settings
from quark.config import Config, load, overlay

ROOT = Path(__file__).parents[1]
CONFIG = load([ROOT / "config/config.yaml", ROOT / "config/scale/test.yaml"])


def stages(config: Config) -> dict[str, BaseModel]:
    """The settings of every stage by the name of its rule, at one of its places."""
    return {
        "sample": settings.explore(config, "toxicity", 1, 1),
        "score": settings.score(config, "toxicity"),
        "quantize": settings.quantize(config, "toxicity", 1, 1),
        "train": settings.train(config, "toxicity", 1, 1),
        "generate": settings.generate(config, "toxicity", "quark", 1, "nontoxic"),
        "judge": settings.judge(config),
        "evaluate": settings.evaluate(config, "toxicity", "quark", 1, "nontoxic"),
    }


def changed(above) -> Config:
    return Config.model_validate(overlay(CONFIG.model_dump(exclude_unset=True), above))


def nested(key: str, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seeds", (1, 2), set()),  # a new seed is a new place, old places stay
        ("precision", "bf16", {"sample", "train", "generate", "judge", "evaluate"}),
        ("tasks.toxicity.splits", ("nontoxic",), set()),
        ("tasks.toxicity.methods", ("base",), set()),
        # The model, the judge and the prompts are input files; here only what the table reports.
        ("tasks.toxicity.model", "smollm2-135m", {"evaluate"}),
        ("tasks.toxicity.judge", "smollm2-135m", {"evaluate"}),
        ("tasks.toxicity.prompts", "rtp", set()),
        ("tasks.toxicity.scorer", "another", {"score"}),
        ("quark.version", 9, {"sample", "quantize", "train"}),
        ("quark.iterations", 9, {"train"}),  # the learning rate falls to zero over all of them
        ("quark.quantiles", 4, {"quantize", "train"}),
        ("quark.prompts", 9, {"sample"}),
        ("quark.first_samples", 9, set()),  # the stages here are of iteration 1
        ("quark.samples", 9, {"sample"}),
        ("quark.sampling.temperature", 0.5, {"sample"}),
        ("quark.max_failed_scores", 0.5, {"quantize"}),
        ("quark.training.learning_rate", 0.5, {"train"}),
        ("quark.training.gauge_prompts", 0, {"train"}),
        ("quark.reward_tokens.first_layer", 0, {"train"}),
        ("evaluation.version", 2, {"generate", "judge", "evaluate"}),
        ("evaluation.prompts", 3, {"generate"}),
        ("evaluation.samples", 9, {"generate", "evaluate"}),
        ("evaluation.sampling.top_p", 0.5, {"generate", "evaluate"}),
        ("evaluation.toxicity_threshold", 0.7, {"evaluate"}),
        ("evaluation.bootstrap", 9, {"evaluate"}),
    ],
)
def test_a_key_changes_exactly_the_stages_that_depend_on_it(key, value, expected):
    before, after = stages(CONFIG), stages(changed(nested(key, value)))
    assert {name for name in before if before[name] != after[name]} == expected


def test_only_iteration_0_draws_the_first_samples():
    after = changed({"quark": {"first_samples": 9}})
    assert settings.explore(after, "toxicity", 1, 0).samples == 9
    assert settings.explore(after, "toxicity", 1, 1) == settings.explore(CONFIG, "toxicity", 1, 1)
    more = changed({"quark": {"samples": 9}})
    assert settings.explore(more, "toxicity", 1, 0) == settings.explore(CONFIG, "toxicity", 1, 0)


def test_the_version_of_quark_leaves_the_base_model_alone():
    after = changed({"quark": {"version": 3}})
    before = settings.generate(CONFIG, "toxicity", "base", 1, "nontoxic")
    assert settings.generate(after, "toxicity", "base", 1, "nontoxic") == before


def test_the_streams_of_all_places_differ():
    places = [
        *(make(CONFIG, "toxicity", seed, i).stream
          for make in (settings.explore, settings.quantize, settings.train)
          for seed in (1, 2, 11) for i in (0, 1, 11)),
        *(settings.generate(CONFIG, "toxicity", method, seed, split).stream
          for method in ("base", "quark") for seed in (1, 2, 11)
          for split in ("nontoxic", "challenging")),
    ]  # fmt: skip
    assert len(set(places)) == len(places) == 3 * 9 + 12


def test_settings_hold_no_path_threads_or_memory():
    """Else moving the directory or the machine would run everything again."""
    forbidden = {
        "path",
        "file",
        "out",
        "local",
        "threads",
        "cores",
        "memory",
        "memory_mb",
        "mem_mb",
    }

    def keys(value):
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set()

    for name, wanted in stages(CONFIG).items():
        assert not keys(wanted.model_dump()) & forbidden, name
        text = wanted.model_dump_json()
        for path in (str(ROOT), "resources/", "results/", "tests/", "config/"):
            assert path not in text, f"{name}: {text}"


@pytest.mark.parametrize("stage", list(stages(CONFIG)))
def test_settings_survive_the_command_line(stage):
    wanted = stages(CONFIG)[stage]
    assert type(wanted).model_validate_json(wanted.model_dump_json()) == wanted


def test_every_settings_model_is_tested_here():
    models = {
        value
        for value in vars(settings).values()
        if isinstance(value, type) and value.__module__ == settings.__name__
    }
    tested = {type(wanted) for wanted in stages(CONFIG).values()}
    # the benchmark's hold all of `quark`, and no result depends on them
    assert tested | {settings.SpeedSettings} == models
