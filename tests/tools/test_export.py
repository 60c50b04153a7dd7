"""An exported model, loaded by transformers alone, writes what the policy writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import steered_logits
from runs import configured, moved
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from quark.config import Config, ConfigError
from quark.generation.decoding import Plain
from quark.generation.logprobs import response_logprobs
from quark.generation.sampler import sample
from quark.models.decode_state import response_hidden
from quark.models.lm import encode, load_tokenizer, pad
from quark.tools.export import BEST, export

PROMPTS = ["So I started", "a", "The man said that"]


@pytest.fixture(params=["gpt2", "llama"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A function that makes a run of one architecture."""
    return lambda *how: moved(tmp_path, request.param, *how)


def exported(config: Config, tmp_path: Path, place: float | None = None) -> tuple[Any, Any]:
    """The exported directory, loaded by transformers."""
    out, places = tmp_path / "exported", (tmp_path / "results", tmp_path / "resources")
    export(config, "toxicity", "quark", 1, *places, out, place)
    remote = config.quark.reward_tokens.form == "sink"  # all others load without its code
    lm = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=remote).eval()
    how = {"padding_side": "left", "trust_remote_code": remote}
    return lm, AutoTokenizer.from_pretrained(out, **how)


@pytest.mark.parametrize(
    ("form", "lora"),
    [("embedding", False), ("linear", False), ("sink", False), ("none", False), ("sink", True)],
)
def test_the_next_token_has_the_policys_law(trained, tmp_path, form, lora):
    config, policy = trained(form, lora)
    lm, tokenizer = exported(config, tmp_path)
    texts = [[5, 6, 7], [9], [8, 1]]
    prompts = encode(tokenizer, PROMPTS)
    told = [policy.condition(ids, 0) for ids in prompts]
    policy.steer()
    with torch.no_grad():
        want = response_hidden(policy, told, texts) @ policy.head.T
        found = []
        for prompt, text in zip(PROMPTS, texts, strict=True):
            read = tokenizer(prompt, return_tensors="pt")["input_ids"]
            step = lm(read, use_cache=True)
            logits = [step.logits[:, -1]]
            for word in text[:-1]:
                step = lm(torch.tensor([[word]]), past_key_values=step.past_key_values)
                logits.append(step.logits[:, -1])
            found.append(torch.cat(logits))
    # float32 sums in another order
    torch.testing.assert_close(torch.cat(found)[:, : policy.vocabulary], want, rtol=1e-4, atol=1e-4)


def test_a_whole_text_has_the_policys_likelihood(trained, tmp_path):
    """Under a sink, as a response to its own first token; alone, and padded on either side."""
    config, policy = trained("sink")
    lm, _ = exported(config, tmp_path)
    texts = [[5, 6, 7, 8, 9], [9], [8, 1, 30]]

    def of_the_policy(prompts):
        responses = [[ids[1:]] for ids in texts]
        how = {"names": list("abc"), "memory_mb": 4000}
        return np.concatenate(response_logprobs(policy, prompts, responses, **how))

    def of_the_export(logits, ids):
        return logits[:-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum().item()

    want = of_the_policy([policy.condition(ids[:1], 0) for ids in texts])
    close = {"rel": 0, "abs": 1e-4}  # float32 sums in another order; the shift moves them by 1e-2
    assert want != pytest.approx(of_the_policy([ids[:1] for ids in texts]), rel=0, abs=1e-3)
    with torch.no_grad():
        rows = [torch.tensor([ids]) for ids in texts]
        alone = [
            of_the_export(lm(row).logits[0], ids) for row, ids in zip(rows, texts, strict=True)
        ]
        assert alone == pytest.approx(want, **close)
        labelled = lm(rows[0], labels=rows[0])
        assert labelled[0] is labelled.loss  # where stock models have it
        assert -4 * labelled.loss.item() == pytest.approx(want[0], **close)
        for side in ("left", "right"):
            ids, real = pad(texts, side)
            read = zip(lm(ids, attention_mask=real.long()).logits, real, texts, strict=True)
            padded = [of_the_export(logits[own], text) for logits, own, text in read]
            assert padded == pytest.approx(want, **close)


@pytest.mark.parametrize("form", ["embedding", "linear", "sink", "none"])
def test_generate_and_pipeline_write_what_the_policy_writes(trained, tmp_path, form):
    """Greedily, in one batch of prompts of different lengths."""
    config, policy = trained(form)
    lm, tokenizer = exported(config, tmp_path)
    greedy = config.evaluation.decoding["nucleus"].model_copy(update={"top_k": 1, "top_p": 1.0})
    plain = encode(load_tokenizer(tmp_path / "resources/models/tiny-gpt2"), PROMPTS)
    told = [policy.condition(ids, 0) for ids in plain]
    policy.steer()
    written = sample(Plain(policy), told, list("abc"), 1, greedy, seed_name="1", memory_mb=4000)
    want = [ids[0] for _, ids, _ in sorted(written, key=lambda each: each.place)]
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    found = lm.generate(**batch, do_sample=False, top_k=None, top_p=None, temperature=None)
    after = batch["input_ids"].shape[1]
    for ids, row in zip(want, found[:, after:].tolist(), strict=True):
        assert row[: len(ids)] == ids
    write = pipeline("text-generation", model=lm, tokenizer=tokenizer)
    (said,) = write(PROMPTS[0], do_sample=False, top_k=None, top_p=None, temperature=None)
    text = tokenizer.decode(want[0], skip_special_tokens=True)
    assert said["generated_text"] == PROMPTS[0] + text


@pytest.mark.parametrize("form", ["embedding", "linear"])
@pytest.mark.parametrize("named", ["GPTNeoXTokenizer", "LlamaTokenizer", None])
def test_nothing_but_the_reward_token_is_read_before_a_prompt(trained, tmp_path, form, named):
    """Not what the model's own tokenizer puts there, nor what its class adds when it is loaded."""
    config, _ = trained(form)
    folder = tmp_path / "resources/models/tiny-gpt2"
    own = load_tokenizer(folder)
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single=[own.eos_token, "$A"], special_tokens=[(own.eos_token, own.eos_token_id)]
    )
    own.save_pretrained(folder)
    if named is not None:
        about = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(
            json.dumps(about | {"tokenizer_class": named, "add_bos_token": True})
        )
    _, tokenizer = exported(config, tmp_path)
    best = tokenizer.convert_tokens_to_ids([BEST] if form == "embedding" else [])
    for text in PROMPTS:
        assert tokenizer(text)["input_ids"] == best + encode(load_tokenizer(folder), [text])[0]


def test_it_draws_as_the_evaluation_did(trained, tmp_path):
    config, policy = trained("embedding")
    lm, tokenizer = exported(config, tmp_path)
    how, wanted = lm.generation_config, config.evaluation.decoding["nucleus"]
    assert how.do_sample
    assert (how.temperature, how.top_k, how.top_p) == (1.0, 0, wanted.top_p)
    assert (how.min_new_tokens, how.max_new_tokens) == (3, wanted.max_new_tokens)
    best = tokenizer.convert_tokens_to_ids(BEST)
    assert tokenizer("a")["input_ids"][0] == best == how.suppress_tokens[0]
    assert policy.vocabulary == best


@pytest.mark.parametrize("place", [3.0, -1.0])
def test_a_place_of_linear_tokens(trained, tmp_path, place):
    """Logits of the exported model equal the equation's; its embeddings are the base model's."""
    config, policy = trained("linear")
    lm, _ = exported(config, tmp_path, place)
    with torch.no_grad():
        found = lm(torch.tensor([[5, 6, 7, 8]])).logits[0, 2:]
    wanted = steered_logits(policy, [5, 6, 7], [8], place)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-3)  # float32
    assert torch.equal(lm.get_input_embeddings().weight, policy.embeddings.weight)
    card = (tmp_path / "exported/README.md").read_text()
    assert f"at place {place:g} of its reward tokens" in card
    assert ("writes more of what the reward forbids" in card) == (place < 0)


def test_only_linear_tokens_have_places(trained, tmp_path):
    config, _ = trained("embedding")
    with pytest.raises(ConfigError, match="--place is for reward tokens of the form linear"):
        exported(config, tmp_path, 2.0)


def test_a_sink_never_loads_as_the_base_model(trained, tmp_path):
    config, _ = trained("sink")
    exported(config, tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "exported", trust_remote_code=False)


def test_the_card_says_where_it_comes_from(trained, tmp_path):
    config, _ = trained("linear")
    exported(config, tmp_path)
    card = (tmp_path / "exported/README.md").read_text()
    assert card.startswith("---\nlicense: ")
    for part in ("toxic continuations unlearned", "form linear", "profanity-check"):
        assert part in card
    assert "Not yet: there is no " in card


def test_a_run_that_is_not_there_is_named(tmp_path):
    config = configured("gpt2", "linear")
    places = tmp_path / "results", tmp_path / "resources", tmp_path / "out"
    with pytest.raises(ConfigError, match="iteration-1/checkpoint: not trained yet: snakemake"):
        export(config, "toxicity", "quark", 1, *places)
    with pytest.raises(ConfigError, match="ppo: only quark and quark_unlikelihood"):
        export(config, "toxicity", "ppo", 1, *places)
