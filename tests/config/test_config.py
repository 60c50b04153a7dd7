"""The configuration: the shipped files load, and each fault is named with its file and remedy."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from quark import config as configuration
from quark.config import (
    ConfigError,
    Perspective,
    WrittenConfig,
    check,
    for_task,
    load,
    overlay,
    variants,
)

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "config/config.yaml"
SCALES = sorted((ROOT / "config/scale").glob("*.yaml"))


def fault(tmp_path, text):
    """The message when `text` is laid over the default; the file is called over.yaml."""
    over = tmp_path / "over.yaml"
    over.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load([DEFAULT, over])
    return str(caught.value)


# ------------------------------------------------------------------------------- shipped files
def test_the_default_stands_alone():
    config = load([DEFAULT])
    assert config.model_dump(mode="json") == WrittenConfig.model_validate(
        yaml.safe_load(DEFAULT.read_text())
    ).model_dump(mode="json")
    assert config.tasks["toxicity"].methods[0] == "base"


@pytest.mark.parametrize("scale", SCALES, ids=lambda file: file.stem)
def test_every_scale_lies_over_the_default(scale):
    config, default = load([DEFAULT, scale]), load([DEFAULT])
    assert config != default
    assert config.quark.version == default.quark.version, "only the method's author raises it"


def test_the_scale_of_tests_needs_no_network():
    config = load([DEFAULT, ROOT / "config/scale/test.yaml"])
    task = config.tasks["toxicity"]
    assert config.models[task.model].random and config.models[task.judge].random
    assert all(source.local for source in config.prompts[task.prompts].sources)


def test_the_schema_is_up_to_date():
    file = "workflow/schemas/config.schema.json"
    assert json.loads((ROOT / file).read_text()) == WrittenConfig.model_json_schema(), (
        f"the typed configuration changed; run: quark schema --out {file}"
    )


# -------------------------------------------------------------------------------- unknown keys
@pytest.mark.parametrize(
    ("text", "key", "value", "nearest"),
    [
        ("{sedes: [1]}", "sedes", "[1]", "seeds"),
        ("{quark: {iteration: 7}}", "quark.iteration", "7", "quark.iterations"),
        (
            "{quark: {training: {lerning_rate: 0.5}}}",
            "quark.training.lerning_rate",
            "0.5",
            "quark.training.learning_rate",
        ),
        (
            "{evaluation: {decoding: {nucleus: {topp: 0.3}}}}",
            "evaluation.decoding.nucleus.topp",
            "0.3",
            "evaluation.decoding.nucleus.top_p",
        ),
        (  # below a name that the user chose
            "{tasks: {toxicity: {juge: x}}}",
            "tasks.toxicity.juge",
            "'x'",
            "tasks.toxicity.judge",
        ),
        (
            "{prompts: {rtp: {splits: {nontoxic: {promts: 3}}}}}",
            "prompts.rtp.splits.nontoxic.promts",
            "3",
            "prompts.rtp.splits.nontoxic.prompts",
        ),
        (  # in an optional section
            "{models: {m: {package: {nam: x}, licence: none}}}",
            "models.m.package.nam",
            "'x'",
            "models.m.package.name",
        ),
        (  # in a list
            "{prompts: {p: {sources: [{name: a, local: b, format: lines, licence: c, txt: d}]}}}",
            "prompts.p.sources.0.txt",
            "'d'",
            "prompts.p.sources.0.text",
        ),
    ],
)
def test_an_unknown_key_is_named_with_file_value_and_nearest_key(
    tmp_path, text, key, value, nearest
):
    line = f"{tmp_path}/over.yaml: {key} = {value}: no such key; did you mean {nearest}?"
    assert f"  {line}" in fault(tmp_path, text).splitlines()


def test_a_key_like_no_other_gets_no_guess(tmp_path):
    assert fault(tmp_path, "{zzzqq: 1}").endswith("over.yaml: zzzqq = 1: no such key")


def test_every_fault_is_named_at_once(tmp_path):
    message = fault(tmp_path, "{sedes: [1], quark: {samples: 0, iteration: 2}}")
    assert all(key in message for key in ("sedes", "quark.samples", "quark.iteration"))


def test_every_section_refuses_unknown_keys():
    def sections(model):
        return [model, *(s for sub in model.__subclasses__() for s in sections(sub))]

    for section in sections(configuration.Section):
        assert section.model_config["extra"] == "forbid", section
        assert section.model_config["frozen"], section
        for field in section.model_fields.values():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                assert issubclass(inner, configuration.Section), f"{section}: {inner}"


# --------------------------------------------------------------------------- impossible values
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{seeds: []}", "seeds = []"),
        ("{precision: fp16}", "precision = 'fp16'"),
        ("{quark: {iterations: 0}}", "quark.iterations = 0"),
        ("{quark: {quantiles: 1}}", "quark.quantiles = 1"),
        ("{quark: {samples: 1.5}}", "quark.samples = 1.5"),
        ("{quark: {max_failed_scores: 1.1}}", "quark.max_failed_scores = 1.1"),
        ("{quark: {training: {learning_rate: 0}}}", "quark.training.learning_rate = 0"),
        ("{quark: {training: {learning_rate: .inf}}}", "quark.training.learning_rate = inf"),
        ("{quark: {training: {kl_coef: .nan}}}", "quark.training.kl_coef = nan"),
        ("{quark: {training: {kl_coef: -0.1}}}", "quark.training.kl_coef = -0.1"),
        ("{quark: {training: {kl_direction: both}}}", "quark.training.kl_direction = 'both'"),
        ("{quark: {sampling: {temperature: 0}}}", "quark.sampling.temperature = 0"),
        (
            "{evaluation: {decoding: {nucleus: {top_p: 0}}}}",
            "evaluation.decoding.nucleus.top_p = 0",
        ),
        ("{evaluation: {samples: null}}", "evaluation.samples = None"),
        (
            "{evaluation: {decoding: {nucleus: {min_new_tokens: 21}}}}",
            "evaluation.decoding.nucleus: min_new_tokens exceeds max_new_tokens",
        ),
        (
            "{evaluation: {decoding: {nucleus: {penalty_alpha: 0.6}}}}",
            "evaluation.decoding.nucleus: penalty_alpha needs top_k above 0, temperature 1",
        ),
        (
            "{quark: {sampling: {top_k: 8, penalty_alpha: 0.6}}}",
            "quark: sampling.penalty_alpha must be 0: exploring draws its samples",
        ),
        (
            "{quark: {training: {quantile_shares: [0.5, 0.5]}}}",
            "quark: training.quantile_shares needs one share for each quantile, sum 1",
        ),
        (
            "{quark: {quantiles: 2, training: {quantile_shares: [0.5, 0.6]}}}",
            "quark: training.quantile_shares needs one share for each quantile, sum 1",
        ),
        (
            "{models: {m: {licence: none}}}",
            "models.m: give exactly one of package, hub, local, random, finetuned; got none",
        ),
        (
            "{models: {smollm2-135m: {local: here}}}",  # over the default's package
            "give exactly one of package, hub, local, random, finetuned; got package and local",
        ),
        ("{models: {Big Model: {local: here, licence: none}}}", "models.Big Model"),
        ("{models: {smollm2-135m: {package: {sha256: abc}}}}", "package.sha256 = 'abc'"),
        (
            "{prompts: {p: {sources: [{name: a, local: b, format: jsonl, licence: c}]}}}",
            "format lines has no `text`, all others need it",
        ),
        (
            "{prompts: {rtp: {splits: {train: {prompts: 3}}}}}",
            "splits must not hold `train`",
        ),
        ("{tasks: {politeness: {}}}", "tasks.politeness"),
        ("{perspective: {url: 'http://a.example/x'}}", "perspective.url = 'http://a.example/x'"),
        ("{perspective: {url: 'http://localhost@a.example/'}}", "must begin with https://"),
        ("{perspective: {url: 'http://localhost.a.example/'}}", "must begin with https://"),
        ("{perspective: {url: 'ftp://localhost/'}}", "must begin with https://"),
        ("{perspective: {url: 'https:///x'}}", "must begin with https://"),
        ("{quark: {iterations: true}}", "quark.iterations = True"),
        ("{quark: {iterations: 2.0}}", "quark.iterations = 2.0"),
        (
            '{quark: {samples: "64"}}',
            "quark.samples = '64': Input should be a valid integer; leave",
        ),
        ('{quark: {explore_place: "1e-4"}}', "quark.explore_place = '1e-4'"),
        ("{quark: {max_failed_scores: false}}", "quark.max_failed_scores = False"),
        ("{quark: {shuffle: 1}}", "quark.shuffle = 1"),
        ('{seeds: ["1"]}', "seeds.0 = '1'"),
        ("{quark: {training: {betas: [true, 0.9]}}}", "quark.training.betas.0 = True"),
        (
            "{models: {m: {hub: {repository: a/b, revision: main}, licence: none}}}",
            "models.m.hub.revision = 'main': a branch or tag can move: write the commit's 40 hex",
        ),
    ],
)
def test_an_impossible_value_is_named_with_its_file(tmp_path, text, expected):
    line = next(line for line in fault(tmp_path, text).splitlines() if expected in line)
    assert line.startswith(f"  {tmp_path}/over.yaml: ")


@pytest.mark.parametrize(
    "url",
    ["https://a.example/x", "http://localhost:80/", "http://127.0.0.1:80/x", "http://[::1]/x"],
)
def test_texts_are_sent_by_https_or_stay_on_this_machine(url):
    assert Perspective(url=url, attribute="TOXICITY", label="then").url == url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{tasks: {toxicity: {model: gtp2}}}", "tasks.toxicity.model is 'gtp2'"),
        ("{tasks: {toxicity: {judge: gtp2}}}", "tasks.toxicity.judge is 'gtp2'"),
        ("{tasks: {toxicity: {prompts: owt}}}", "tasks.toxicity.prompts is 'owt'"),
        ("{tasks: {toxicity: {splits: [nontoxc]}}}", "nontoxc not among the splits of prompts.rtp"),
        ("{benchmark: {model: smollm-135m}}", "; did you mean smollm2-135m?"),
        ("{tasks: {toxicity: {prompts: sentence}}}", "; did you mean sentences?"),
    ],
)
def test_an_undeclared_name_is_named(tmp_path, text, expected):
    assert expected in fault(tmp_path, text)


def test_an_undeclared_name_comes_with_the_declared_ones(tmp_path):
    message = fault(tmp_path, "{tasks: {toxicity: {model: gtp2}}}")
    assert "declared are: smollm2-135m" in message


def test_a_missing_key_is_named(tmp_path):
    raw = yaml.safe_load(DEFAULT.read_text())
    del raw["quark"]["samples"]
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match=r"quark\.samples is missing; see config/README\.md"):
        load([alone])


# --------------------------------------------------------------------------------------- files
def test_the_file_laid_over_last_is_blamed(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("{quark: {samples: 3}}")
    second.write_text("{quark: {samples: 0}}")
    with pytest.raises(ConfigError, match=r"second\.yaml: quark\.samples = 0"):
        load([DEFAULT, first, second])
    assert load([DEFAULT, second, first]).quark.samples == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": a configuration is a mapping"),
        ("- 1", ": a configuration is a mapping"),
        ("quark:\n  samples: [1", ", line 2: not valid YAML: expected ',' or ']'"),
        ("seeds: [1]\nlabel: \a", ", line 2: not valid YAML: the character U+0007; remove it"),
        ("seeds: [1]\nat: 2026-13-01", ", line 2: not valid YAML: '2026-13-01' is no timestamp"),
        ("seeds: [1]\n5: x", ", line 2: not valid YAML: the key 5 is no text; put it in quotes"),
        ("quark: &q\n  x: *q", ", line 2: not valid YAML: an alias stands within what it names"),
        (5000 * "[", ": not valid YAML: it is nested too deeply"),
    ],
)
def test_a_file_that_holds_no_configuration_is_named(tmp_path, text, expected):
    assert fault(tmp_path, text).startswith(f"{tmp_path}/over.yaml{expected}")


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("quark: {samples: 3}\nquark: {samples: 4}", 2, "quark stands here and in line 1"),
        ("quark:\n  samples: 3\n  'samples': 3", 3, "samples stands here and in line 2"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_lines(tmp_path, text, line, expected):
    message = f"{tmp_path}/over.yaml, line {line}: not valid YAML: {expected}; keep one"
    assert fault(tmp_path, text) == message


def test_merged_keys_do_not_stand_twice(tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*a, *b], x: 4}")
    assert configuration.read(over)["c"] == {"x": 4, "y": 2}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such configuration file"):
        load([DEFAULT, "gone.yaml"])
    with pytest.raises(ConfigError, match=f"{tmp_path}: Is a directory; name a YAML file"):
        load([DEFAULT, tmp_path])
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("seeds: [1]\nprecision: fünf".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml, line 2: not UTF-8; convert the file"):
        load([DEFAULT, latin])


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", ".1e-3", "1.e-4", "0.0001"])
def test_a_number_without_quotes_is_one(tmp_path, number):
    over = tmp_path / "over.yaml"
    over.write_text(f"{{quark: {{training: {{learning_rate: {number}}}}}}}")
    assert load([DEFAULT, over]).quark.training.learning_rate == 1e-4


# --------------------------------------------------------------------------- Snakemake's --config
def test_what_snakemake_reads_as_text_is_typed_as_in_a_file():
    training = {"learning_rate": "1e-4", "max_grad_norm": "null", "restart": "true"}
    perspective = {"label": "2026-11-01"}  # a date in a file, which would need quotes there
    over = {"seeds": ["1", "2"], "quark": {"training": training}, "perspective": perspective}
    config = load([DEFAULT], over)
    found = config.quark.training
    assert config.seeds == (1, 2) and config.perspective.label == "2026-11-01"
    assert (found.learning_rate, found.max_grad_norm, found.restart) == (1e-4, None, True)


def test_a_fault_behind_config_is_named():
    with pytest.raises(ConfigError, match=r"  --config: quark\.samples = True: Input should be"):
        load([DEFAULT], {"quark": {"samples": "true"}})


# ------------------------------------------------------------------------------------- overlay
def test_mappings_merge_and_all_else_is_replaced():
    below = {"a": {"x": 1, "y": {"z": [1, 2]}}, "b": {"x": 1}, "c": 1}
    above = {"a": {"y": {"z": [3]}, "w": 4}, "b": None, "c": {"x": 5}, "d": 6}
    assert overlay(below, above) == {
        "a": {"x": 1, "y": {"z": [3]}, "w": 4},
        "b": None,
        "c": {"x": 5},
        "d": 6,
    }


def test_overlay_shares_nothing_with_what_it_was_made_from():
    below, above = {"a": {"x": [1]}}, {"b": {"y": [2]}}
    merged = overlay(below, above)
    merged["a"]["x"].append(9)
    merged["b"]["y"].append(9)
    assert (below, above) == ({"a": {"x": [1]}}, {"b": {"y": [2]}})


def test_a_loaded_configuration_cannot_be_changed():
    config = load([DEFAULT])
    with pytest.raises(ValueError, match="frozen"):
        config.quark.samples = 9


# ------------------------------------------------------------------ what one task has otherwise
def over(**sections):
    return {"tasks": {"toxicity": {"override": sections}}}


def raw(above):
    return overlay(yaml.safe_load(DEFAULT.read_text()), above)


def test_a_task_may_have_settings_of_its_own():
    evaluation = {"decoding": {"nucleus": {"top_p": 0.5}}}
    config = check(raw(over(quark={"samples": 9}, evaluation=evaluation)))
    own = for_task(config, "toxicity")
    changed = check(raw({"quark": {"samples": 9}, "evaluation": evaluation}))
    alone = {"tasks": {"toxicity": changed.tasks["toxicity"]}, "ablations": {}, "tuning": {}}
    assert own == changed.model_copy(update=alone)
    assert config.quark == load([DEFAULT]).quark
    assert for_task(own, "toxicity") == own


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        (
            {"quark": {"quantile": 3}},
            "tasks.toxicity.override.quark.quantile = 3: no such key; "
            "did you mean tasks.toxicity.override.quark.quantiles?",
        ),
        ({"quark": {"samples": 0}}, "tasks.toxicity.override.quark.samples = 0: Input should be"),
        ({"quark": {"quantiles": 8}}, "tasks.toxicity.override.quark: training.quantile_shares"),
        ({"models": {}}, "tasks.toxicity.override.models = 'models': Input should be 'quark'"),
    ],
)
def test_a_bad_override_is_named_where_it_stands(sections, fault, tmp_path):
    file = tmp_path / "over.yaml"
    file.write_text(yaml.safe_dump(over(**sections)))
    with pytest.raises(ConfigError) as error:
        load([DEFAULT, file])
    (line,) = str(error.value).splitlines()[1:]
    assert line.startswith(f"  {file}: {fault}")


# ------------------------------------------------------------------------------------ ablations
def sweep(**variants):
    return {"ablations": {"mine": {"task": "toxicity", "variants": variants}}}


def test_a_variant_has_settings_of_its_own():
    changes = {"quark": {"samples": 9}, "evaluation": {"prompts": 5}}
    config = check(raw(sweep(more=changes, none=None)))
    own = variants(config)["toxicity", "quark.mine.more"]
    assert (own.quark.samples, own.evaluation.prompts) == (9, 5)
    assert own.tasks["toxicity"].methods == ("quark",) and list(own.tasks) == ["toxicity"]
    assert list(config.ablations["mine"].variants) == ["more"]
    assert own.baselines == config.baselines


@pytest.mark.parametrize(
    ("above", "fault"),
    [
        (
            sweep(x={"quark": {"quantile": 3}}),
            "ablations.mine.variants.x.quark.quantile = 3: no such key; "
            "did you mean ablations.mine.variants.x.quark.quantiles?",
        ),
        (sweep(x={"quark": {"samples": 0}}), "ablations.mine.variants.x.quark.samples = 0"),
        (
            sweep(x={"quark": {"reward_tokens": {"form": "none"}}}),
            "training.trained_layers = 0 leaves nothing to learn: reward_tokens.form is none",
        ),
        (sweep(), "ablations.mine.variants"),
        ({"ablations": {"mine": {"task": "poetry"}}}, "ablations.mine.task = 'poetry'"),
    ],
)
def test_an_impossible_variant_is_named(above, fault):
    with pytest.raises(ConfigError) as caught:
        check(raw(above))
    assert fault in str(caught.value)


# --------------------------------------------------------------------------------------- tuning
def tuning(**tries):
    others = {"gedi": None, "dexperts": None, "ppo": None} | tries.pop("baselines", {})
    return {"tuning": {"toxicity": {"tries": {"quark_guided": None, "baselines": others} | tries}}}


def test_a_try_changes_one_key():
    config = check(raw(tuning(baselines={"gedi": {"weight": [0.5, 7]}}, quark={"samples": [3]})))
    found = variants(config)
    tried = [name for task, name in found if task == "toxicity"]
    assert tried == ["gedi.weight.0.5", "gedi.weight.7", "quark.samples.3"]
    own = found["toxicity", "gedi.weight.0.5"]
    assert own.baselines.gedi.weight == 0.5 and own.tasks["toxicity"].methods == ("gedi",)
    assert own.quark == config.quark
    assert found["toxicity", "quark.samples.3"].quark.samples == 3


@pytest.mark.parametrize(
    ("tries", "fault"),
    [
        ({"quark": {"samples": 3}}, "quark.samples = 3: write a list of the values to try"),
        ({"quark": {"samples": []}}, "quark.samples = []: write a list"),
        ({"quark": {"quantile_shares": [[1, 0]]}}, "[1, 0] is neither a number nor a word"),
        ({"quark": {"samples": [True]}}, "True is neither a number nor a word"),
        ({"quark": {"samples": [10**400]}}, "000 is neither a number nor a word"),
        ({"quark": {"samples": [float("nan")]}}, "nan is neither a number nor a word"),
        ({"quark": {"samples": [0]}}, "tuning.toxicity.tries.quark.samples = 0"),
        ({"quark": {"sample": [2]}}, "did you mean tuning.toxicity.tries.quark.samples?"),
        ({"quark": {"samples": [2, 2.0]}}, "two tries have the same method"),
        ({"baselines": {"corpus": {"tokens": [9]}}}, "corpus.tokens: only settings of a method"),
        ({"baselines": {"version": [9]}}, "baselines.version: only settings of a method"),
    ],
)
def test_an_impossible_try_is_named(tries, fault):
    with pytest.raises(ConfigError) as caught:
        check(raw(tuning(**tries)))
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "fault"),
    [
        ({"nontxic": 3}, "evaluation.prompts.nontxic: no prompts have such a split; there are"),
        ({"provking": 3}, "; did you mean provoking?"),
        (
            {"nontoxic": 0},
            "  configuration: evaluation.prompts.nontoxic = 0: Input should be greater",
        ),
        ({"nontoxic": "3"}, "evaluation.prompts.nontoxic = '3': Input should be a valid integer"),
        ({"No Name": 3}, "evaluation.prompts.No Name = 'No Name': String should match"),
        ([3], "  configuration: evaluation.prompts = [3]: Input should be a valid integer"),
        (0, "  configuration: evaluation.prompts = 0: Input should be greater than"),
    ],
)
def test_a_bad_limit_of_prompts_is_named_once(limit, fault):
    with pytest.raises(ConfigError) as caught:
        check(raw({"evaluation": {"prompts": limit}}))
    (line,) = str(caught.value).splitlines()[1:]
    assert fault in line


def test_two_variants_of_one_name_are_refused():
    ablation = {"samples": {"task": "toxicity", "variants": {"3": {"quark": {"samples": 3}}}}}
    with pytest.raises(ConfigError) as caught:
        check(raw(tuning(quark={"samples": [2, 3]}) | {"ablations": ablation}))
    where = "tuning.toxicity.tries: quark.samples.3 is the name of another variant too"
    assert str(caught.value).startswith(where)


def test_tries_need_a_split_and_a_task():
    for change, fault in (
        ({"toxicity": {"split": "tset"}}, "tuning.toxicity.split is 'tset', not among the splits"),
        ({"poetry": {"tries": {}}}, "tuning.poetry"),
    ):
        with pytest.raises(ConfigError) as caught:
            check(raw({"tuning": change}))
        assert fault in str(caught.value)


def test_tokens_that_a_method_needs():
    none = {"reward_tokens": {"form": "none"}, "explore_place": 1.0}
    none |= {"training": {"trained_layers": 1}}
    with pytest.raises(ConfigError, match=r"form is none, but gedi needs the tokens"):
        check(raw({"quark": none, "baselines": {"ppo": {"trained_layers": 1}}}))


def test_models_that_come_from_each_other():
    circle = {"models": {"mle": {"finetuned": {"model": "unlikelihood"}}}}
    with pytest.raises(ConfigError, match="mle from unlikelihood from mle: one of them must come"):
        check(raw(circle))


def test_a_second_scorer_needs_a_metric():
    assert check(raw({})).tasks["toxicity"].second_scorer == "tox-block"
    with pytest.raises(ConfigError, match=r"tasks\.repetition\.second_scorer: this task has no"):
        check(raw({"tasks": {"repetition": {"second_scorer": "vader"}}}))


def test_a_model_that_a_method_needs():
    missing = {"tasks": {"toxicity": {"methods": ["base", "simctg"]}}}
    with pytest.raises(ConfigError, match=r"tasks\.toxicity\.models\.simctg is missing"):
        check(raw(missing))
    whole = {"tasks": {"repetition": {"prefix": None}}}
    with pytest.raises(ConfigError, match=r"tasks\.repetition\.prefix is missing"):
        check(raw(whole))


def test_only_linear_tokens_explore_at_a_place():
    with pytest.raises(
        ConfigError, match=r"explore_place = -1\.5 needs reward_tokens\.form = linear"
    ):
        check(
            raw(
                {
                    "quark": {
                        "reward_tokens": {"form": "embedding"},
                        "training": {"trained_layers": 6},
                    }
                }
            )
        )


@pytest.mark.parametrize("change", [{"temperature": 0.7}, {"top_k": 50}, {"top_p": 0.9}])
def test_ppo_learns_from_the_whole_law(change):
    truncated = {"quark": {"sampling": change}}
    with pytest.raises(ConfigError, match=r"temperature 1, top_k 0 and top_p 1 for ppo"):
        check(raw(truncated))
    methods = {task: {"methods": ["base", "quark"]} for task in raw({})["tasks"]}
    check(raw(truncated | {"tasks": methods, "tuning": {"toxicity": None}}))


def test_linear_tokens_freeze_the_model():
    with pytest.raises(
        ConfigError, match=r"trained_layers = 6, but with reward_tokens\.form = linear"
    ):
        check(raw({"quark": {"training": {"trained_layers": 6}}}))
    with pytest.raises(
        ConfigError, match=r"ppo\.trained_layers must be 0 with quark\.reward_tokens\.form"
    ):
        check(raw({"baselines": {"ppo": {"trained_layers": 2}}}))


@pytest.mark.parametrize(
    ("task", "methods", "message"),
    [
        ("toxicity", ["dexperts"], "cannot sample for dexperts, whose decoder changes each step"),
        ("toxicity", ["ppo"], "cannot sample for ppo, which draws at place 5 within the base"),
        ("toxicity", ["grpo"], "no method of tasks.toxicity.methods needs samples of grpo"),
        ("repetition", ["quark"], "cannot sample for quark with reward tokens of the form sink"),
    ],
)
def test_vllm_samples_only_for_methods_that_it_can_express(task, methods, message):
    with pytest.raises(ConfigError, match=rf"tasks\.{task}\.vllm: .*{message}"):
        check(raw({"tasks": {task: {"vllm": methods}}}))
    check(
        raw({"tasks": {"toxicity": {"vllm": ["base", "quark"]}, "repetition": {"vllm": ["base"]}}})
    )


def test_vllm_has_no_temperature_near_zero():
    cold = {"evaluation": {"decoding": {"nucleus": {"temperature": 0.001}}}}
    with pytest.raises(ConfigError, match=r"vLLM has no temperature below 0\.01"):
        check(raw(cold | {"tasks": {"toxicity": {"vllm": ["base"]}}}))


def test_vllm_may_draw_for_a_method_that_others_start_from():
    above = {"methods": ["base", "quark_guided"], "vllm": ["quark"]}
    check(raw({"tasks": {"toxicity": above}, "tuning": {"toxicity": None}, "ablations": {}}))
