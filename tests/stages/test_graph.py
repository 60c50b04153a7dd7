"""Which files a target needs."""

from pathlib import Path

import pytest

from quark.config import Config, ConfigError, load, overlay, resolved
from quark.stages.graph import Graph, family

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "config/config.yaml", ROOT / "config/scale/test.yaml"]


def graph(**change: object) -> Graph:
    written = load(FILES).model_dump(mode="json")
    return Graph(resolved(Config.model_validate(overlay(written, change)), "fp32"))


@pytest.fixture(scope="module")
def tiny() -> Graph:
    return graph()


def test_quark_decodes_with_its_last_checkpoint_and_steered_methods_with_its(tiny: Graph) -> None:
    last = tiny.iterations("toxicity", "quark") - 1
    wanted = [f"results/toxicity/quark/seed-1/iteration-{last}/checkpoint"]
    assert tiny.checkpoints("toxicity", "quark", 1) == wanted
    assert tiny.checkpoints("toxicity", "quark_guided", 1) == wanted
    assert tiny.checkpoints("toxicity", "base", 1) == []


def test_each_method_and_variant_has_its_own_last_iteration() -> None:
    counts = {"quark": {"iterations": 4}, "baselines": {"ppo": {"iterations": 3}}}
    last = graph(**counts).last_iterations()
    assert (last["toxicity", "quark"], last["toxicity", "ppo"]) == (3, 2)
    assert last["toxicity", "quark.top-k.50"] == 0  # the sweep trains one iteration


def test_parts_come_in_the_order_of_the_decoder(tiny: Graph) -> None:
    assert tiny.checkpoints("toxicity", "dexperts", 1) == [
        "results/toxicity/part-expert/seed-1/checkpoint",
        "results/toxicity/part-anti-expert/seed-1/checkpoint",
    ]


def test_ppo_begins_with_quarks_samples(tiny: Graph) -> None:
    first, second = (tiny.of_iteration("toxicity", "ppo", 1, i, "samples.parquet") for i in (0, 1))
    assert first == "results/toxicity/quark/seed-1/iteration-0/samples.parquet"
    assert second == "results/toxicity/ppo/seed-1/iteration-1/samples.parquet"
    assert "/ppo/" in tiny.of_iteration("toxicity", "ppo", 1, 0, "checkpoint")


def test_reference_caches_are_of_all_sampling_and_of_earlier_training(tiny: Graph) -> None:
    found = tiny.reference_caches("toxicity", "quark", 1, 1)
    places = [file.removeprefix("results/toxicity/quark/seed-1/") for file in found]
    assert places == [
        "iteration-0/samples.hidden.safetensors",
        "iteration-1/samples.hidden.safetensors",
        "iteration-0/training.hidden.safetensors",
    ]


@pytest.mark.parametrize(
    ("change", "samples_are_quarks", "training_is_quarks"),
    [
        ({"quark": {"training": {"kl_coef": 0.5}}}, True, False),
        ({"quark": {"sampling": {"top_k": 50}}}, False, False),
        ({"evaluation": {"threshold": 0.4}}, True, True),
    ],
)
def test_a_variant_takes_what_it_would_make_alike(
    change: dict[str, object], samples_are_quarks: bool, training_is_quarks: bool
) -> None:
    found = graph(ablations={"one": {"task": "toxicity", "variants": {"x": change}}})
    name = "quark.one.x"
    assert family(name) == "quark" and ("toxicity", name) in found.variants
    first = found.of_iteration("toxicity", name, 1, 0, "samples.parquet")
    assert ("/quark/" in first) == samples_are_quarks
    (checkpoint,) = found.checkpoints("toxicity", name, 1)
    assert (f"/{name}/" in checkpoint) == (not training_is_quarks)
    assert found.sweep("one") == ["base", "quark", name]


def test_a_row_costs_all_that_it_was_made_from(tiny: Graph) -> None:
    found = tiny.training_costs("toxicity", "dexperts", 1)
    assert found[:2] == [
        f"results/toxicity/quark/seed-1/iteration-0/{name}.json" for name in ("samples", "scores")
    ]
    assert found[2] == "results/toxicity/corpus/seed-1/corpus.json" and len(found) == 5
    assert tiny.training_costs("toxicity", "base", 1) == []
    methods = ["base", "dexperts", "quark"]
    every = graph(tasks={"toxicity": {"methods": methods}}).costs("toxicity")
    assert len(every) == len(set(every)) and set(found) <= set(every)


def test_tries_must_be_configured(tiny: Graph) -> None:
    with pytest.raises(ConfigError, match=r"tuning\.repetition is missing"):
        tiny.tried("repetition")


def test_places_are_tried_on_the_samples_and_policy_of_quark_with_vllm_too() -> None:
    tuned = {"tuning": {"toxicity": {"tries": {"quark_guided": {"place": [2.0, 3.0]}}}}}
    for drawn in ([], ["quark"]):
        task = {"methods": ["base", "quark", "quark_guided"], "vllm": drawn}
        found = graph(tasks={"toxicity": task}, **tuned)
        assert ("toxicity", "quark_guided.place.2") in found.variants
        assert found.trained_as("toxicity", "quark_guided.place.2") == "quark"
