"""Sampling with vLLM.

A script stands in for vLLM in most tests. Those named `test_vllm_...` need vLLM itself:

    QUARK_VLLM_PYTHON=/path/to/environment/bin/python pytest tests/generation/test_vllm.py
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from oracle import EMBEDDING, LINEAR, plain_logits
from safetensors.torch import load_file
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from quark.config import LoRA, RewardTokens, Sampling
from quark.core.shards import Shard
from quark.generation import vllm, vllm_worker
from quark.generation.decoding import Contrast, Guided, Plain
from quark.models.decode_state import PromptLengthError
from quark.models.lm import Policy
from quark.models.lora import add_adapters
from quark.models.reward_tokens import new_reward_tokens

PYTHON = os.environ.get("QUARK_VLLM_PYTHON")
PROMPTS, NAMES = [[7], [1, 2, 3], [8, 8]], ["a", "b", "c"]
STAND_IN = """#!{python}
import json, shutil, sys
from pathlib import Path
folder = Path(sys.argv[-1])
assert sys.argv[1] == "-I" and Path(sys.argv[2]).name == "vllm_worker.py"
shutil.copytree(folder, {kept!r})
shutil.copy({answer!r}, folder / "responses.json")
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[Any], Path]:
    """Make a program that gives these responses and keeps the request in `tmp_path / kept`."""

    def make(responses: Any) -> Path:
        (tmp_path / "answer.json").write_text(json.dumps(responses))
        program = tmp_path / "python"
        named = {"kept": str(tmp_path / "kept"), "answer": str(tmp_path / "answer.json")}
        program.write_text(STAND_IN.format(python=sys.executable, **named))
        program.chmod(0o755)
        return program

    return make


def run(policy: Policy, sampling: Sampling, python: Path | None, **changed: Any) -> dict[int, Any]:
    arguments: dict[str, Any] = {"prompts": PROMPTS, "names": NAMES, "samples": 2, "hidden": True}
    arguments |= {"seed_name": "1/test", "memory_mb": 4000, "decoder": Plain(policy)}
    arguments |= {"out": Path(tempfile.mkdtemp()) / "samples.parquet"} | changed
    found = vllm.sample(**arguments, sampling=sampling, python=python)
    return {place: (ids, hidden) for place, ids, hidden in found}


def kept(tmp_path: Path) -> dict[str, Any]:
    request: dict[str, Any] = json.loads((tmp_path / "kept/request.json").read_text())
    return request


ANSWER = [[[5, 6, 100, 9], [4]], [[1, 2, 3], [100]], [[7, 7], [8, 9]]]


def test_a_response_ends_with_the_end_id_and_has_its_hidden_states(
    make_policy: Callable[..., Policy], sampling: Sampling, stand_in: Any
) -> None:
    policy = make_policy(n_tokens=0)
    found = run(policy, sampling, stand_in(ANSWER))
    assert {place: ids for place, (ids, _) in found.items()} == {
        0: [[5, 6, 100], [4]],
        1: [[1, 2, 3], [100]],
        2: [[7, 7], [8, 9]],
    }
    for place, (responses, hidden) in found.items():
        logits = [plain_logits(policy, PROMPTS[place], ids)[:-1] for ids in responses]
        # float32, other shapes of batches
        torch.testing.assert_close(hidden @ policy.head.T, torch.cat(logits), rtol=1e-4, atol=1e-4)


def test_hidden_states_under_reward_tokens(
    policy: Policy, linear_policy: Policy, sampling: Sampling, stand_in: Any, tmp_path: Path
) -> None:
    linear_policy.steer(2)
    embedded = [[101, 7], [102, 1, 2, 3], [101, 8, 8]]
    for each, prompts in ((policy, embedded), (linear_policy, PROMPTS)):
        for place, (ids, hidden) in run(each, sampling, stand_in(ANSWER), prompts=prompts).items():
            logits = torch.cat([plain_logits(each, prompts[place], row)[:-1] for row in ids])
            # float32, other shapes of batches
            torch.testing.assert_close(hidden @ each.head.T, logits, rtol=1e-4, atol=1e-4)
        (tmp_path / "kept").rename(tmp_path / f"kept-{each is policy}")


def test_hidden_states_are_left_out_where_nobody_needs_them(
    make_policy: Callable[..., Policy], sampling: Sampling, stand_in: Any
) -> None:
    found = run(make_policy(n_tokens=0), sampling, stand_in(ANSWER), hidden=False)
    assert [hidden.numel() for _, hidden in found.values()] == [0, 0, 0]


def test_vllm_gets_the_sampling_and_a_seed_for_each_prompt(
    make_policy: Callable[..., Policy], sampling: Sampling, stand_in: Any, tmp_path: Path
) -> None:
    policy = make_policy(n_tokens=0)
    run(policy, sampling, stand_in(ANSWER))
    request = kept(tmp_path)
    assert request["prompts"] == PROMPTS
    assert request["sampling"] == {
        "n": 2,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 0.9,
        "min_tokens": 3,
        "max_tokens": 8,
        "stop_token_ids": policy.end_ids,
        "ignore_eos": True,
        "detokenize": False,
    }
    assert request["engine"] == {"dtype": "float32", "max_model_len": 3 + 8}
    assert len(set(request["seeds"])) == 3


def test_a_shard_draws_its_prompts_with_their_own_seeds(
    make_policy: Callable[..., Policy], sampling: Sampling, stand_in: Any, tmp_path: Path
) -> None:
    policy = make_policy(n_tokens=0)
    together = run(policy, sampling, stand_in(ANSWER))
    seeds = dict(zip(NAMES, kept(tmp_path)["seeds"], strict=True))
    for k in (1, 2):
        own = list(Shard(k, 2).of(range(3)))
        folder = tmp_path / str(k)
        folder.mkdir()
        (tmp_path / "kept").rename(folder / "before")
        found = run(policy, sampling, stand_in([ANSWER[i] for i in own]), shard=Shard(k, 2))
        assert sorted(found) == own
        assert kept(tmp_path)["seeds"] == [seeds[NAMES[i]] for i in own]
        for place, (_, hidden) in found.items():
            # float32, other shapes of batches
            torch.testing.assert_close(hidden, together[place][1], rtol=1e-4, atol=1e-4)
    assert run(policy, sampling, None, shard=Shard(4, 4)) == {}  # it has no prompt


def test_linear_reward_tokens_are_merged(
    linear_policy: Policy, sampling: Sampling, stand_in: Any, tmp_path: Path
) -> None:
    linear_policy.steer(2)
    run(linear_policy, sampling, stand_in(ANSWER))
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "kept/model")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        wanted, found = linear_policy.lm(ids).logits, stored(ids).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert not stored.config.tie_word_embeddings


def test_adapters_are_merged(
    make_policy: Callable[..., Policy], sampling: Sampling, stand_in: Any, tmp_path: Path
) -> None:
    policy = make_policy(n_tokens=0)
    add_adapters(policy.lm, LoRA(rank=2, alpha=4), None, seed=0)
    with torch.no_grad():
        for name, parameter in policy.lm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        ids = torch.tensor([[5, 6, 7]])
        wanted = policy.lm(ids).logits
        run(policy, sampling, stand_in(ANSWER))
        stored = AutoModelForCausalLM.from_pretrained(tmp_path / "kept/model")
        # the product of the factors is added to the weights in float32
        torch.testing.assert_close(stored(ids).logits, wanted, rtol=1e-4, atol=1e-4)


def test_embedded_reward_tokens_are_part_of_embedded_prompts(
    policy: Policy, sampling: Sampling, stand_in: Any, tmp_path: Path
) -> None:
    prompts = [[101, 7], [102, 1, 2, 3], [101, 8, 8]]
    run(policy, sampling, stand_in(ANSWER), prompts=prompts)
    stored = load_file(tmp_path / "kept/prompts.safetensors")
    assert kept(tmp_path)["prompts"] == []
    tokens: Any = policy.reward_tokens
    assert torch.equal(stored["1"][0], tokens.rows[1])
    assert torch.equal(stored["1"][1:], policy.embeddings.weight[[1, 2, 3]])


def test_the_copy_of_the_model_goes_even_if_a_stage_was_killed(
    make_policy: Callable[..., Policy], sampling: Sampling, stand_in: Any, tmp_path: Path
) -> None:
    out = tmp_path / "results/samples.parquet"
    for name in (".samples.parquet.vllm-old/model", ".other.parquet.vllm-running/model"):
        (out.parent / name).mkdir(parents=True)
    run(make_policy(n_tokens=0), sampling, stand_in(ANSWER), out=out)
    assert [each.name for each in out.parent.iterdir()] == [".other.parquet.vllm-running"]


def test_vllm_computes_on_the_gpu_of_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert vllm._visible(1) == "7"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert vllm._visible(1) == "1"


def test_users_may_change_how_vllm_logs_but_not_what_it_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    found = vllm._environment()
    assert (found["VLLM_LOGGING_LEVEL"], found["VLLM_NO_USAGE_STATS"]) == ("DEBUG", "1")


@pytest.mark.parametrize("form", ["sink", "guide"])
def test_what_vllm_cannot_express_is_refused(
    form: str, make_policy: Callable[..., Policy], sink_policy: Policy, sampling: Sampling
) -> None:
    plain = Plain(make_policy(n_tokens=0))
    guided = Guided(plain.policy, Contrast(plain, plain, 1.0))
    decoder, name = (Plain(sink_policy), "SinkTokens") if form == "sink" else (guided, "Guided")
    with pytest.raises(vllm.VLLMError, match=f"cannot decode with {name}"):
        run(decoder.policy, sampling, Path("python"), decoder=decoder)


def test_errors_say_what_to_do(
    make_policy: Callable[..., Policy], sampling: Sampling, tmp_path: Path
) -> None:
    policy = make_policy(n_tokens=0)
    with pytest.raises(vllm.VLLMError, match="set `vllm_python`"):
        run(policy, sampling, None)
    with pytest.raises(vllm.VLLMError, match="nowhere cannot be run"):
        run(policy, sampling, tmp_path / "nowhere")
    with pytest.raises(vllm.VLLMError, match="Is vLLM installed for"):
        run(policy, sampling, Path("/bin/false"))
    with pytest.raises(PromptLengthError, match="prompt b has 60 tokens"):
        run(policy, sampling, None, prompts=[[7], [1] * 60, [8]])


@pytest.mark.parametrize("embedded", [False, True])
def test_the_program_asks_vllm(
    embedded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a module in place of vLLM that has the parts of its interface that are used."""
    asked: dict[str, Any] = {}

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            asked["engine"] = arguments

        def generate(self, prompts: list[Any], params: list[Any]) -> list[Any]:
            asked["prompts"], asked["params"] = prompts, params
            answers = [SimpleNamespace(token_ids=(3, 4)), SimpleNamespace(token_ids=[5])]
            return [SimpleNamespace(outputs=answers) for _ in prompts]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=dict))
    if embedded:
        from safetensors.torch import save_file

        save_file(
            {str(i): torch.full((2, 4), i) for i in range(2)}, tmp_path / "prompts.safetensors"
        )
    request = {
        "prompts": [] if embedded else [[7], [1, 2]],
        "embedded": embedded,
        "seeds": [11, 12],
        "sampling": {"n": 2, "top_p": 0.9},
        "engine": {"dtype": "float32"},
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    vllm_worker.main(tmp_path)
    assert json.loads((tmp_path / "responses.json").read_text()) == [[[3, 4], [5]]] * 2
    assert asked["params"] == [{"n": 2, "top_p": 0.9, "seed": seed} for seed in (11, 12)]
    assert asked["engine"]["model"] == str(tmp_path / "model")
    assert asked["engine"]["dtype"] == "float32"
    assert asked["engine"]["enable_prompt_embeds"] == embedded
    if embedded:
        assert [p["prompt_embeds"].unique().tolist() for p in asked["prompts"]] == [[0], [1]]
    else:
        assert asked["prompts"] == [{"prompt_token_ids": [7]}, {"prompt_token_ids": [1, 2]}]


# ------------------------------------------------------------------------------------ vLLM itself
def small(form: RewardTokens | None) -> Policy:
    """Make a GPT-2 with heads of 32, the smallest that vLLM has for a CPU."""
    torch.manual_seed(0)
    lm = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=23,
            n_layer=1,
            n_embd=32,
            n_head=1,
            n_positions=32,
            bos_token_id=0,
            eos_token_id=22,
            initializer_range=0.12,  # probabilities that are not all in one token
        )
    )
    policy = Policy(lm, new_reward_tokens(lm, 3, form, 0) if form else None).eval()
    if form == LINEAR:
        with torch.no_grad():
            policy.reward_tokens.map.normal_(std=0.1)
        policy.steer(2)
    return policy


def law(policy: Policy, prompt: list[int], sampling: Sampling) -> dict[tuple[int, ...], float]:
    """Probability of each text of up to two tokens, from whole passes."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for time in range(2):
        longer: dict[tuple[int, ...], float] = {}
        for text, p in found.items():
            if text and text[-1] in policy.end_ids:
                longer[text] = p
                continue
            logits = plain_logits(policy, prompt, list(text))[-1].double()
            if time < sampling.min_new_tokens:
                logits[policy.end_ids] = -torch.inf
            for token, q in enumerate(nucleus(logits, sampling)):
                if q:
                    longer[(*text, token)] = p * q
        found = longer
    return found


def nucleus(logits: torch.Tensor, sampling: Sampling) -> list[float]:
    """Probabilities after temperature, top-k and top-p, by sorting."""
    p = (logits / sampling.temperature).softmax(-1)
    order = p.argsort(descending=True).tolist()
    if sampling.top_k:
        order = order[: sampling.top_k]
    p = p / p[order].sum()
    kept: list[int] = []
    for token in order:
        kept.append(token)
        if p[kept].sum() >= sampling.top_p:
            break
    mask = torch.zeros_like(p)
    mask[kept] = 1
    return (p * mask / (p * mask).sum()).tolist()


@pytest.mark.skipif(PYTHON is None, reason="QUARK_VLLM_PYTHON names no Python with vLLM")
@pytest.mark.parametrize(
    ("form", "prompt"), [(None, [7, 3]), (LINEAR, [7, 3]), (EMBEDDING, [23, 7, 3])]
)
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, top_k=0, top_p=0.9, min_new_tokens=1, max_new_tokens=2),
        Sampling(temperature=1, top_k=5, top_p=0.8, min_new_tokens=0, max_new_tokens=2),
    ],
    ids=["nucleus", "top-k"],
)
def test_vllm_draws_from_the_same_law(
    form: RewardTokens | None, prompt: list[int], sampling: Sampling
) -> None:
    """Frequencies of all texts of two tokens against their probabilities, by a chi-square test."""
    policy, count = small(form), 4000
    found = run(policy, sampling, Path(str(PYTHON)), prompts=[prompt], names=["a"], samples=count)
    expected = law(policy, prompt, sampling)
    drawn = {text: 0 for text in expected}
    for ids in found[0][0]:
        assert tuple(ids) in expected, f"{ids} is impossible"
        drawn[tuple(ids)] += 1
    often = [text for text, p in expected.items() if p * count >= 5]  # the test's own condition
    rest = count - sum(drawn[text] for text in often)
    p_rest = 1 - sum(expected[text] for text in often)
    observed = [*(drawn[text] for text in often), rest]
    wanted = [*(count * expected[text] for text in often), count * p_rest]
    if p_rest * count < 5:
        observed, wanted = (
            observed[:-1],
            np.array(wanted[:-1]) * sum(observed[:-1]) / sum(wanted[:-1]),
        )
    assert len(often) >= 16
    assert (
        chisquare(observed, wanted).pvalue > 1e-4
    )  # once in ten thousand seeds a right law has less
