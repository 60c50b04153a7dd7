"""Tiny models and settings that the tests share."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # exact comparisons: the CPU's numbers, on every machine

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from oracle import EMBEDDING, LINEAR, SINK
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from quark.config import RewardTokens, Sampling, Training
from quark.core import schemas
from quark.models.lm import Policy
from quark.models.reward_tokens import new_reward_tokens

torch.set_num_threads(1)
settings.register_profile("tests", derandomize=True, deadline=None, database=None)
settings.load_profile("tests")


def gpt2() -> PreTrainedModel:
    """Learnt positions, tied embeddings, one end id."""
    config = GPT2Config(
        vocab_size=101,
        n_layer=2,
        n_embd=32,
        n_head=4,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=100,
        initializer_range=0.3,  # logits far from uniform
        embd_pdrop=0,
        attn_pdrop=0,
        resid_pdrop=0,
    )
    return GPT2LMHeadModel(config)


def llama() -> PreTrainedModel:
    """Rotary positions, shared key heads, untied embeddings, two end ids."""
    config = LlamaConfig(
        vocab_size=101,
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=[99, 100],
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def moved(policy: Policy) -> None:
    """Give a policy's linear map values, as training would."""
    with torch.no_grad():
        policy.reward_tokens.map.normal_(std=0.06, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[gpt2, llama], ids=["gpt2", "llama"])
def make_policy(request: pytest.FixtureRequest) -> Callable[..., Policy]:
    """Makes float32 policies of one architecture; equal seeds give equal weights."""

    def make(n_tokens: int = 3, seed: int = 0, form: RewardTokens = EMBEDDING) -> Policy:
        torch.manual_seed(seed)
        lm = request.param()
        return Policy(lm, new_reward_tokens(lm, n_tokens, form, seed) if n_tokens else None).eval()

    return make


@pytest.fixture
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy()


@pytest.fixture
def linear_policy(make_policy: Callable[..., Policy]) -> Policy:
    """A policy whose linear map moves hidden states by about a third of their size."""
    policy = make_policy(form=LINEAR)
    moved(policy)
    return policy


@pytest.fixture
def sink_policy(make_policy: Callable[..., Policy]) -> Policy:
    """A policy whose reward tokens shift the attention sink by about a deviation."""
    policy = make_policy(form=SINK)
    with torch.no_grad():
        policy.reward_tokens.axis.normal_(generator=torch.Generator().manual_seed(0))
    return policy


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch has two threads during the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def sampling() -> Sampling:
    return Sampling(temperature=1, top_k=0, top_p=0.9, min_new_tokens=3, max_new_tokens=8)


@pytest.fixture
def training() -> Training:
    return Training(
        sequences=8,
        batch=4,
        learning_rate=1e-3,
        token_learning_rate=1e-2,
        warmup_steps=1,
        betas=(0.9, 0.999),
        eps=1e-8,
        max_grad_norm=1.0,
        kl_coef=0.05,
        kl_direction="policy_to_base",
        entropy_coef=0.06,
        gradient_checkpointing=False,
        reference_cache=True,
        trained_layers=None,
        quantile_shares=None,
        held_out_prompts=2,
    )


@pytest.fixture
def samples(tmp_path: Path) -> Callable[[list[str]], Path]:
    """A function that writes a table of samples with given responses."""

    def write(texts: list[str]) -> Path:
        n = len(texts)
        columns = {
            "row_id": [f"0/p{i}/0" for i in range(n)],
            "prompt_id": [f"p{i}" for i in range(n)],
            "sample": [0] * n,
            "prompt": ["so"] * n,
            "response": texts,
            "prompt_ids": [[1]] * n,
            "response_ids": [[2]] * n,
        }
        schemas.write(tmp_path / "samples.parquet", schemas.SAMPLES, columns)
        return tmp_path / "samples.parquet"

    return write
