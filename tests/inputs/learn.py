"""One iteration of Quark on a tiny GPT-2, alone or as one of torchrun's processes.

    python tests/inputs/learn.py FILES [split] [checkpointing] [plain]

`split`: each process holds a part of each layer; `checkpointing`: backward computes layers again;
`plain`: no reward tokens. Rows are of unlike lengths, and the last batch has one row, so that one
of two processes has nothing to do in it. Each writes FILES.RANK and FILES.RANK.safetensors.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import GPT2Config, GPT2LMHeadModel

from quark.config import RewardTokens, Training
from quark.methods.quark import learn
from quark.models import distributed
from quark.models.lm import Policy, layers_of
from quark.models.reward_tokens import new_reward_tokens
from quark.training.trainer import Rows

LENGTHS = [5, 1, 3, 2, 6, 4, 1, 2, 3]
TRAINING = Training(
    sequences=len(LENGTHS),
    batch=4,
    learning_rate=1e-2,
    token_learning_rate=1e-2,
    warmup_steps=0,
    betas=(0.9, 0.999),
    eps=1e-3,  # with 1e-8, Adam makes whole steps of gradients that are nothing but rounding
    max_grad_norm=1.0,
    kl_coef=0.05,
    kl_direction="policy_to_base",
    entropy_coef=0.06,
    gradient_checkpointing="checkpointing" in sys.argv,
    reference_cache=False,
    trained_layers=None,
    quantile_shares=None,
    held_out_prompts=0,
)


def lm() -> GPT2LMHeadModel:
    """The same weights in every process."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50,
        n_layer=2,
        n_embd=16,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=49,
        embd_pdrop=0,
        attn_pdrop=0,
        resid_pdrop=0,
    )
    return GPT2LMHeadModel(config)


torch.set_num_threads(1)
distributed.join()
rng = np.random.default_rng(0)
rows = Rows(
    [f"row{i}" for i in range(len(LENGTHS))],
    [rng.integers(1, 49, n + 1).tolist() for n in LENGTHS],
    [rng.integers(1, 49, n).tolist() for n in LENGTHS],
    np.arange(len(LENGTHS), dtype=np.int32) % 3,
)
model = lm()
form = RewardTokens(form="embedding")
tokens = None if "plain" in sys.argv else new_reward_tokens(model, 3, form, 0)
policy = Policy(model, tokens).eval()
base = Policy(lm()).eval()
training = TRAINING
if "plain" in sys.argv:
    training = TRAINING.model_copy(update={"trained_layers": 2})
if "split" in sys.argv:
    for each in (policy, base):
        distributed.split_layers(layers_of(each.lm))
moments, steps, curve = learn(
    policy,
    base,
    rows,
    training,
    iteration=0,
    iterations=1,
    precision="fp32",
    seed_name="1/test",
    memory_mb=4000,
    cache=None,
    resume=None,
)
out = f"{sys.argv[1]}.{distributed.rank()}"
Path(out).write_text(f"{distributed.rank()},{distributed.world()},{steps},{curve[-1]['loss']}")
if "split" in sys.argv:  # also the layers of the base model, which go backward never
    inside = [p for each in (policy, base) for p in layers_of(each.lm).parameters()]
    assert all(isinstance(parameter, DTensor) for parameter in inside), "a layer stayed whole"
tensors = {name: parameter.detach() for name, parameter in policy.named_parameters()}
found = {name: distributed.gathered(tensor).clone() for name, tensor in tensors.items()}
found |= {f"{name}/{kind}": moment for name, own in moments.items() for kind, moment in own.items()}
save_file(found, f"{out}.safetensors")
distributed.leave()
