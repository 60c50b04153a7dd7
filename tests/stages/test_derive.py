"""What each verb depends on: all that changes its result, and nothing else."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from quark.config import Config, load, overlay
from quark.config.registry import METHODS, parts
from quark.stages import derive, settings

ROOT = Path(__file__).parents[2]
CONFIG = load([ROOT / "config/config.yaml", ROOT / "config/scale/test.yaml"])
STEERED = ("ctrl", "dexperts", "gedi", "pplm", "ppo", "quark_guided")
GENERATED = {"generate", *(f"generate {method}" for method in STEERED)}
FITTED, PPO = {"dapt", "expert", "fit gedi", "classifier"}, {"sample ppo", "ppo"}


def stages(config: Config) -> dict[str, BaseModel]:
    """The settings of every stage by the name of its rule, at one of its places."""
    return {
        "sample": derive.explore(config, "toxicity", "quark", 1, 1),
        "score": derive.score(config, config.tasks["toxicity"].scorer),
        "quantize": derive.quantize(config, "toxicity", "quark", 1, 1),
        "train": derive.train(config, "toxicity", "quark", 1, 1),
        "corpus": derive.corpus(config, "toxicity", 1),
        "dapt": derive.fit(config, "toxicity", "dapt", 1),
        "expert": derive.fit(config, "toxicity", "expert", 1),
        "fit gedi": derive.fit(config, "toxicity", "gedi", 1),
        "classifier": derive.fit(config, "toxicity", "classifier", 1),
        "sample ppo": derive.explore(config, "toxicity", "ppo", 1, 1),
        "ppo": derive.learn(config, "toxicity", "ppo", 1, 1),
        "generate": derive.generate(config, "toxicity", "quark", 1, "nontoxic", "nucleus"),
        **{
            f"generate {method}": derive.generate(
                config, "toxicity", method, 1, "nontoxic", "nucleus"
            )
            for method in STEERED
        },
        "predict": derive.predict(config, "repetition", "base", "nontoxic"),
        "judge": derive.judge(config),
        "evaluate": derive.evaluate(config, "toxicity", "quark", 1, "nontoxic", "nucleus"),
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
        (
            "precision",
            "bf16",
            {"sample", "train", "predict", "judge", "evaluate", *FITTED, *PPO, *GENERATED},
        ),
        ("tasks.toxicity.splits", ("nontoxic",), set()),
        ("tasks.toxicity.methods", ("base",), set()),
        # The model, the judge and the prompts are input files; here only what the table reports.
        ("tasks.toxicity.model", "smollm2-135m", {"evaluate"}),
        ("tasks.toxicity.judge", "smollm2-135m", {"evaluate"}),
        ("prompts.handmade.splits.nontoxic.prompts", 5, {"generate pplm"}),  # its share of them
        ("tasks.toxicity.scorer", "another", {"score", "corpus"}),
        ("quark.version", 9, {"sample", "quantize", "train"}),
        ("quark.iterations", 9, {"train"}),  # the learning rate falls to zero over all of them
        ("quark.quantiles", 4, {"quantize", "train"}),
        ("quark.prompts", 9, {"sample", "sample ppo"}),
        ("quark.first_samples", 9, {"ppo"}),  # its rates; the stages here are of iteration 1
        ("quark.samples", 9, {"sample"}),
        ("quark.sampling.temperature", 0.5, {"sample", "sample ppo"}),
        ("quark.sampling.min_new_tokens", 2, {"sample", "sample ppo", "ppo"}),
        ("quark.max_failed_scores", 0.5, {"quantize", "ppo"}),
        ("quark.shuffle", True, {"quantize"}),
        ("quark.quantize", "pool", {"quantize"}),
        ("quark.explore_place", 1.0, {"sample"}),
        ("quark.training.restart", False, {"train"}),
        ("quark.training.learning_rate", 0.5, {"train"}),
        ("quark.training.held_out_prompts", 0, {"train"}),
        ("quark.reward_tokens.first_layer", 3, {"train", "ppo", "fit gedi"}),
        ("quark_guided.place", 9, {"generate quark_guided"}),
        ("baselines.version", 9, {"corpus", *FITTED, *PPO}),
        ("baselines.corpus.tokens", 9, {"corpus"}),
        ("baselines.dapt.learning_rate", 0.5, {"dapt"}),
        ("baselines.dexperts.training.learning_rate", 0.5, {"expert"}),
        ("baselines.gedi.training.epochs", 9, {"fit gedi", "generate gedi"}),
        ("baselines.gedi.weight", 9, {"generate gedi"}),
        ("baselines.dexperts.alpha", 9, {"generate dexperts"}),
        ("baselines.pplm.step_size", 9, {"generate pplm"}),
        ("baselines.ctrl.penalty", 9, {"generate ctrl"}),
        ("baselines.ppo.samples", 9, {"sample ppo", "ppo"}),
        ("baselines.ppo.clip", 9, {"ppo"}),
        ("baselines.ppo.place", 3.0, {"generate ppo"}),
        ("tasks.toxicity.prefix", 3, {"sample", "sample ppo", *GENERATED}),
        ("tasks.repetition.prefix", 3, {"predict"}),
        ("tasks.toxicity.models", {"simctg": "smollm2-135m"}, set()),
        ("evaluation.version", 9, {"predict", "judge", "evaluate", *GENERATED}),
        ("evaluation.prompts", 2, {"predict", "evaluate", *GENERATED}),
        ("evaluation.prompts", {"nontoxic": 2}, {"predict", "evaluate", *GENERATED}),
        ("evaluation.prompts", {"challenging": 2}, set()),  # the stages here are of another split
        ("evaluation.samples", 9, {"evaluate", *GENERATED}),
        ("evaluation.decoding.nucleus.top_p", 0.5, {"evaluate", *GENERATED}),
        ("evaluation.threshold", 0.7, {"evaluate"}),
        ("evaluation.bootstrap", 9, {"evaluate"}),
        ("tasks.toxicity.vllm", ("base", "quark"), {"sample", "generate"}),
    ],
)
def test_a_key_changes_exactly_the_stages_that_depend_on_it(key, value, expected):
    before, after = stages(CONFIG), stages(changed(nested(key, value)))
    assert {name for name in before if before[name] != after[name]} == expected


def test_other_prompts_change_the_settings_of_pplm_alone():
    split = {"prompts": 128, "toxic": False}
    known = {"rtp": {"splits": {"nontoxic": split}}}
    before = stages(changed({"prompts": known}))
    after = stages(changed({"prompts": known, "tasks": {"toxicity": {"prompts": "rtp"}}}))
    assert {name for name in before if before[name] != after[name]} == {"generate pplm"}


def test_an_evaluation_knows_what_its_prompts_are():
    prompts = {"handmade": {"splits": {"nontoxic": {"note": "written by hand"}}}}
    before, after = stages(CONFIG), stages(changed({"prompts": prompts}))
    assert before["evaluate"].note is None and after["evaluate"].note == "written by hand"
    assert {name for name in before if before[name] != after[name]} == {"evaluate"}


def test_only_iteration_0_draws_the_first_samples():
    def explored(config, iteration):
        return derive.explore(config, "toxicity", "quark", 1, iteration)

    after = changed({"quark": {"first_samples": 9}})
    assert explored(after, 0).samples == 9
    assert explored(after, 1) == explored(CONFIG, 1)
    more = changed({"quark": {"samples": 9}})
    assert explored(more, 0) == explored(CONFIG, 0)


def test_the_version_of_quark_leaves_the_base_model_alone():
    after = changed({"quark": {"version": 9}})
    before = derive.generate(CONFIG, "toxicity", "base", 1, "nontoxic", "nucleus")
    assert derive.generate(after, "toxicity", "base", 1, "nontoxic", "nucleus") == before


def test_pplm_gets_its_share_of_the_prompts():
    def prompts(config):
        return derive.generate(config, "toxicity", "pplm", 1, "nontoxic", "nucleus").prompts

    assert prompts(CONFIG) == 3  # half of six
    assert prompts(changed({"evaluation": {"prompts": 4}})) == 2
    assert prompts(changed({"baselines": {"pplm": {"share": 0.01}}})) == 1


def test_the_streams_of_all_places_differ():
    places = [
        *(derive.learn(CONFIG, "toxicity", "ppo", seed, i).stream
          for seed in (1, 2, 11) for i in (0, 1, 11)),
        *(make(CONFIG, "toxicity", method, seed, i).stream
          for make in (derive.quantize, derive.train) for method in derive.QUARKS
          for seed in (1, 2, 11) for i in (0, 1, 11)),
        *(derive.explore(CONFIG, "toxicity", method, seed, i).stream
          for method in (*derive.QUARKS, "ppo") for seed in (1, 2, 11) for i in (0, 1, 11)),
        *(derive.fit(CONFIG, "toxicity", part, seed).stream
          for part in parts() for seed in (1, 2, 11)),
        *(derive.generate(CONFIG, "toxicity", method, seed, split, "nucleus").stream
          for method in METHODS for seed in (1, 2, 11)
          for split in ("nontoxic", "challenging")),
    ]  # fmt: skip
    assert len(set(places)) == len(places) == 8 * 9 + 9 * 3 + 21 * 6


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
    resources = {settings.FinetuneSettings, settings.SortSettings, settings.MauveSettings}
    resources |= {settings.CalibrateSettings, settings.Function}  # tests/scorers/test_function.py
    assert tested | resources | {settings.SpeedSettings} == models


SORTED = {
    "prompts": {
        "handmade": {
            "splits": {"candidates": {"prompts": 4}},
            "sorted": {
                "model": "tiny-gpt2",
                "scorer": "vader",
                "samples": 5,
                "sampling": CONFIG.evaluation.decoding["nucleus"].model_dump(),
                "threshold": 0.5,
                "splits": {"low": {"prompts": 2, "above": [0, 1]}},
            },
        }
    }
}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("samples", 9, {"candidates"}),
        ("sampling.top_p", 0.5, {"candidates"}),
        ("threshold", 0.7, {"sort"}),
        ("splits.low.prompts", 1, {"sort"}),
        ("scorer", "diversity", set()),  # the rule that scores has it alone
    ],
)
def test_what_sorting_depends_on(key, value, expected):
    def made(config):
        sorting = config.prompts["handmade"].sorted
        return {
            "candidates": derive.candidates(config, "handmade", sorting),
            "sort": derive.sort(sorting, "handmade"),
        }

    config = changed(SORTED)
    above = overlay(SORTED, nested(f"prompts.handmade.sorted.{key}", value))
    before, after = made(config), made(changed(above))
    assert {name for name in before if before[name] != after[name]} == expected
    assert config.prompts["handmade"].tested >= {"low", "nontoxic"}
    assert "candidates" not in config.prompts["handmade"].tested


def test_vllm_draws_but_searches_nothing():
    nucleus = CONFIG.evaluation.decoding["nucleus"].model_dump()
    search = nucleus | {"penalty_alpha": 0.6, "top_k": 4, "top_p": 1.0}
    config = changed(
        {
            "tasks": {"toxicity": {"vllm": ["base"]}},
            "evaluation": {"decoding": {"search": search}},
        }
    )
    engines = {
        name: derive.generate(config, "toxicity", "base", 1, "nontoxic", name).engine
        for name in config.evaluation.decoding
    }
    assert engines == {"nucleus": "vllm", "search": "local"}
