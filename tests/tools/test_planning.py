"""What a run will cost: counts by hand, and FLOP against a plain count of products."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from quark.config import Config, ConfigError, RewardTokens, load, resolved
from quark.tools.planning import (
    Cost,
    Expected,
    Machine,
    Progress,
    on_gpus,
    plan,
    table,
    this_machine,
)
from quark.tools.planning.flop import KNOWN, Size

FOLDER = Path(__file__).parents[2] / "config"
TINY = load([FOLDER / "config.yaml", FOLDER / "scale/test.yaml"])


def of(costs: list[Cost], **which: str) -> list[Cost]:
    return [c for c in costs if all(getattr(c, key) == value for key, value in which.items())]


@pytest.fixture
def prompts() -> Config:
    """The tiny configuration, its prompts counted: 14 held out of 30."""
    handmade = TINY.prompts["handmade"].model_copy(update={"roughly": 30})
    return TINY.model_copy(update={"prompts": TINY.prompts | {"handmade": handmade}})


def test_quark_by_hand(prompts: Config, tmp_path: Path) -> None:
    found = of(plan(prompts, ["toxicity"], tmp_path), task="toxicity", method="quark")
    rows = [16 * 4, 16 * 2]  # training prompts times samples in iterations 0 and 1
    assert [c.calls for c in of(found, stage="score")] == [*rows, 6 * 5, 4 * 5]
    assert [c.tokens for c in of(found, stage="sample")] == [20 * n for n in rows]
    assert [c.sequences for c in of(found, stage="train")] == [32, 32]
    assert [c.tokens for c in of(found, stage="generate")] == [6 * 5 * 20, 4 * 5 * 20]
    assert all(c.jobs == 1 for c in found)
    model = Size(2, 64, 12 * 2 * 64 * 64, 257 * 64)
    token, predicted = 2 * model.trunk, 2 * model.trunk + 2 * model.head
    sampled = 16 * (15 * token) + rows[0] * 20 * predicted
    assert of(found, stage="sample")[0].flop == sampled
    # With linear tokens all samples' hidden states are kept: two bytes for each of 64 numbers.
    written = [c.disk for c in of(found, stage="sample")]
    assert written[0] == 2 * written[1] == 2 * 64 * rows[0] * 20 + rows[0] * 35 * 9
    # Three products with the head for each token: policy, base model, gradient.
    train = of(found, stage="train")[0]
    assert train.flop == 32 * 20 * 3 * 2 * model.head and train.disk == 12 * 64**2
    # The judge is the base model: a product with the head for each token.
    assert of(found, stage="judge")[0].flop == 6 * 5 * 20 * 2 * model.head


def test_learning_by_hand(prompts: Config, tmp_path: Path) -> None:
    """All parameters: three times the forward pass. The base model reads beside it."""
    how = prompts.quark.training.model_copy(
        update={"trained_layers": None, "reference_cache": False}
    )
    tokens = RewardTokens(form="embedding")
    update = {"training": how, "reward_tokens": tokens, "explore_place": 1.0}
    quark = prompts.quark.model_copy(update=update)
    every = prompts.model_copy(update={"quark": quark})
    train = of(plan(every, ["toxicity"], tmp_path), method="quark", stage="train")[0]
    trunk, head = 12 * 2 * 64 * 64, 257 * 64
    forward = 2 * trunk * 35 + 2 * head * 20  # 15 tokens of a prompt, 20 of a response
    assert train.flop == 32 * (3 + 1) * forward
    assert train.disk == 12 * (trunk + head)


def test_seeds_multiply_and_shared_models_do_not(prompts: Config, tmp_path: Path) -> None:
    one = plan(prompts, None, tmp_path)
    several = plan(prompts.model_copy(update={"seeds": (1, 2, 3)}), None, tmp_path)
    for single, three in zip(one, several, strict=True):
        times = 1 if single.task in ("models", "prompts") else 3
        assert three.jobs == times * single.jobs
        assert three.flop == pytest.approx(times * single.flop)
    models = [c.method for c in of(one, task="models")]
    assert sorted(models) == sorted(set(models)) and "mle" in models


def test_baselines_are_counted(prompts: Config, tmp_path: Path) -> None:
    methods = ("base", "dexperts", "pplm", "ppo")
    task = prompts.tasks["toxicity"].model_copy(update={"methods": methods})
    many = prompts.model_copy(update={"tasks": {"toxicity": task}})
    found = plan(many, None, tmp_path)
    assert {c.method for c in of(found, stage="fit")} == {"expert", "anti-expert", "classifier"}
    assert of(found, method="quark", stage="sample"), "the corpus takes Quark's first samples"
    flop = {m: of(found, method=m, stage="generate")[0].flop for m in methods}
    assert flop["dexperts"] == 3 * flop["base"]
    assert of(found, method="pplm", stage="generate")[0].tokens == 3 * 5 * 20  # half the prompts
    assert len(of(found, method="ppo", stage="sample")) == 1  # the first takes Quark's
    assert next(c.calls for c in of(found, method="ppo", stage="score")) == 16 * 3
    assert [c.sequences for c in of(found, method="ppo", stage="learn")] == [16 * 4, 16 * 3]


def test_passes_over_the_corpus_are_counted(prompts: Config, tmp_path: Path) -> None:
    """Of what learns from texts; PPLM's classifier reads them once, and is two rows of numbers."""
    parts = {}
    for epochs in (1, 3):
        raw = prompts.model_dump(exclude_unset=True)
        raw["tasks"]["toxicity"]["methods"] = ["base", "dapt", "dexperts", "pplm"]
        raw["baselines"]["dexperts"]["training"]["epochs"] = epochs
        found = plan(Config.model_validate(raw), ["toxicity"], tmp_path)
        parts[epochs] = {c.method: c for c in of(found, stage="fit")}
    one, three = parts[1]["expert"], parts[3]["expert"]
    counts = ("sequences", "tokens", "flop")
    assert [getattr(three, n) for n in counts] == [3 * getattr(one, n) for n in counts]
    assert three.disk == one.disk
    assert parts[3]["dapt"] == parts[1]["dapt"] != one  # it has settings of its own
    classifier = parts[1]["classifier"]
    assert parts[3]["classifier"] == classifier
    assert classifier.disk == 4 * 2 * (64 + 1)  # float32, with a bias


def test_what_was_fetched_is_known_better(prompts: Config, tmp_path: Path) -> None:
    folder = tmp_path / "models/tiny-gpt2"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"parameters": 1000, "vocabulary": 10}))
    (folder / "config.json").write_text(json.dumps({"n_embd": 8, "n_layer": 3}))
    costs = plan(prompts, ["toxicity"], tmp_path)
    sampled = of(costs, method="base", stage="generate")[0]
    assert sampled.flop == 6 * 15 * 2 * 920 + 6 * 5 * 20 * (2 * 920 + 2 * 80)


def test_unknown_sizes_say_how_to_know_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.handmade: .* set prompts\.handmade\.roughly"):
        plan(TINY, ["toxicity"], tmp_path)
    hub = {"repository": "somebody/new", "revision": 40 * "1"}
    raw = TINY.model_dump(exclude_unset=True)
    raw["models"]["tiny-gpt2"] = {"hub": hub, "licence": "none"}
    with pytest.raises(ConfigError, match=r"models\.tiny-gpt2: its size .*--cores all .*tiny-gpt2"):
        plan(Config.model_validate(raw), ["toxicity"], tmp_path)


@pytest.mark.parametrize(
    "scale",
    ["config.yaml", *(f"scale/{name}.yaml" for name in ("laptop", "gpu", "gpu-default", "paper"))],
)
def test_every_scale_can_be_planned(scale: str, tmp_path: Path) -> None:
    config = resolved(load([FOLDER / "config.yaml", FOLDER / scale]), "bf16")
    costs = plan(config, None, tmp_path)
    assert {c.task for c in costs} >= {"toxicity", "sentiment_positive", "repetition"}
    assert all(c.flop >= 0 and c.jobs >= 1 for c in costs)


def test_sizes_of_gpt2() -> None:
    """Within two in a hundred of the published 124, 355, 774 and 1558 million parameters."""
    for name, parameters in zip(KNOWN, (124e6, 355e6, 774e6, 1558e6), strict=False):
        assert KNOWN[name].trunk + KNOWN[name].head == pytest.approx(parameters, rel=0.02)


def test_the_memory_of_weights_gradients_and_moments(tmp_path: Path) -> None:
    """gpu.yaml: all of GPT-2 large in training, beside the base model in bfloat16."""
    config = resolved(load([FOLDER / "config.yaml", FOLDER / "scale/gpu.yaml"]), "bf16")
    costs = plan(config, ["toxicity"], tmp_path)
    weights = KNOWN["gpt2-large"].trunk + KNOWN["gpt2-large"].head
    of_stage = {(c.method, c.stage): c.memory for c in costs}
    assert of_stage["base", "generate"] == of_stage["quark", "sample"] == 2 * weights
    cached = config.quark.training.reference_cache
    beside = 0 if cached else 2 * weights
    assert of_stage["quark", "train"] == pytest.approx(16 * weights + beside)
    assert of_stage["ppo", "learn"] == pytest.approx(18 * weights)
    assert of_stage["base", "score"] == 0
    frozen = load([FOLDER / "config.yaml"])
    (map_alone,) = {
        c.memory
        for c in plan(resolved(frozen, "fp32"), ["toxicity"], tmp_path)
        if c.stage == "train"
    }
    small = KNOWN["smollm2-135m"]
    whole = small.trunk + small.head
    assert map_alone == pytest.approx(4 * whole + 16 * small.width**2, rel=0.01)


def test_experts_are_models_and_maps_are_not(tmp_path: Path) -> None:
    config = resolved(load([FOLDER / "config.yaml", FOLDER / "scale/equal.yaml"]), "bf16")
    held = {
        c.method: c.memory for c in plan(config, ["toxicity"], tmp_path) if c.stage == "generate"
    }
    assert held["dexperts"] == 3 * held["base"]
    assert held["dexperts_linear"] == held["gedi"] == held["base"]


def test_dapt_decodes_with_one_model(tmp_path: Path) -> None:
    costs = plan(resolved(load([FOLDER / "config.yaml"]), "bf16"), ["toxicity"], tmp_path)
    held = {c.method: c.memory for c in costs if c.stage == "generate"}
    assert held["dapt"] == held["base"] and held["dexperts"] == 3 * held["base"]


def test_what_does_not_fit_on_a_gpu_is_named() -> None:
    cost = Cost("toxicity", "quark", "train", jobs=1, flop=3.6e15, memory=30e9)
    shown = on_gpus([cost, replace(cost, method="ppo", memory=1e9)], utilisation=0.5)
    columns = [list(column.cells) for column in shown.columns]
    rows = dict(zip(columns[0], zip(*columns[1:], strict=True), strict=True))
    hours = 2 * (3.6e15 / (312e12 * 0.5) + 5) / 3600
    assert rows["A100, 80 GB"] == ("80", f"{hours:.1f}", "-")
    assert rows["A100, 40 GB"][2] == "-" and rows["RTX 4090"][2] == "quark train (30 GB)"


def test_the_table_adds_up() -> None:
    cost = Cost("toxicity", "quark", "train", 2, 1500, 3, 2_000_000, 3.6e15, 5e9)
    machine = Machine(1000)
    shown = table([cost, replace(cost, method="ppo")], machine)
    assert shown.columns[-2].header == "minutes"
    cells = [list(column.cells) for column in shown.columns]
    assert cells[0] == ["[bold]toxicity", "  quark", "  ppo", "[bold]total"]
    assert [column[1] for column in cells][1:] == ["2", "1.5k", "3", "2M", "3.6k", "60", "5.0"]
    assert [column[-1] for column in cells][1:] == ["4", "3k", "6", "4M", "7.2k", "120", "10"]


def test_the_time_of_a_stage() -> None:
    """Start of the jobs, operations at the share that is reached, texts of a classifier."""
    machine = Machine(100, {"train": 0.5}, texts=400)
    train = Cost("toxicity", "quark", "train", jobs=2, flop=1e12)
    assert machine.seconds(train) == pytest.approx(2 * 5 + 1e12 / 50e9)
    assert machine.seconds(replace(train, stage="judge")) == pytest.approx(2 * 5 + 10)
    score = Cost("toxicity", "quark", "score", calls=800)
    assert machine.seconds(score) == pytest.approx(3)
    assert machine.seconds(replace(score, classifier=True)) == pytest.approx(3 + 2)


def test_this_machine_is_measured() -> None:
    """Any machine multiplies between 1 and 10 000 000 times 10 ** 9 numbers a second."""
    assert 1 < this_machine("fp32", 1).gflops < 1e7


def test_every_heavy_job_is_expected(prompts: Config, tmp_path: Path) -> None:
    """The plan's own jobs, called by rule and wildcards, take together what the plan takes."""
    methods = ("base", "dexperts", "gedi", "ppo", "quark")
    task = prompts.tasks["toxicity"].model_copy(update={"methods": methods})
    costs = plan(prompts.model_copy(update={"tasks": {"toxicity": task}}), None, tmp_path)
    machine = Machine(0.001)
    expected = Expected(costs, machine)
    found = 0.0
    for cost in costs:
        wildcards = {"task": cost.task, "method": cost.method}
        if cost.place.startswith("iteration"):
            wildcards["iteration"] = cost.place.removeprefix("iteration-")
        elif cost.place:
            wildcards |= dict(zip(("split", "decoding"), cost.place.split("/"), strict=True))
        if cost.stage == "fit":
            wildcards["part"] = cost.method
        found += cost.jobs * expected.seconds(cost.stage, wildcards)
    assert found == pytest.approx(sum(map(machine.seconds, costs)))
    wildcards = {"task": "toxicity", "method": "quark.samples.9", "iteration": "0"}
    own = expected.seconds("train", wildcards | {"method": "quark"})
    assert expected.seconds("train", wildcards) == own > 10
    assert expected.seconds("train_earlier", wildcards) == own  # with checkpoints=last
    assert expected.seconds("page", {"task": "toxicity"}) == 3


def test_progress_is_set_right_by_what_is_done(tmp_path: Path) -> None:
    now, lines = [0.0], []
    progress = Progress({1: 100.0, 2: 300.0}, tmp_path, lines.append, clock=lambda: now[0])
    assert progress.line() == "0 of 2 jobs done in 0 s, about 7 min left"
    record = logging.makeLogRecord({"event": "job_finished", "job_id": 1})
    now[0] = 200.0  # twice as slow as expected
    progress.handle(logging.makeLogRecord({"event": "job_started", "job_id": 2}))
    progress.handle(record)
    assert lines == ["1 of 2 jobs done in 3 min, about 10 min left"]
    assert json.loads((tmp_path / "progress.json").read_text()) == {"line": lines[0]}
