"""Two processes take the steps of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

# One iteration of Quark on a tiny GPT-2; rows of unlike lengths, and a last batch of one row, so
# that one of two processes has nothing to do in it.
LEARN = """
import sys
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel
from quark import distributed
from quark.config import RewardTokens, Training
from quark.lm import Policy
from quark.methods.quark import learn
from quark.reward_tokens import new_reward_tokens
from quark.training import Rows

def lm():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_layer=2, n_embd=16, n_head=2, n_positions=32,
        bos_token_id=0, eos_token_id=49, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0))

torch.set_num_threads(1)
distributed.join()
rng = np.random.default_rng(0)
lengths = [5, 1, 3, 2, 6, 4, 1, 2, 3]
rows = Rows([f"row{i}" for i in range(9)], [rng.integers(1, 49, n + 1).tolist() for n in lengths],
    [rng.integers(1, 49, n).tolist() for n in lengths], np.arange(9, dtype=np.int32) % 3)
policy = lm()
policy = Policy(policy, new_reward_tokens(policy, 3, RewardTokens(form="embedding", first_layer=0), 0))
training = Training(sequences=9, batch=4, learning_rate=1e-2, token_learning_rate=1e-2,
    warmup_steps=0, betas=(0.9, 0.999), eps=1e-8, max_grad_norm=1.0, kl_coef=0.05,
    kl_direction="policy_to_base", entropy_coef=0.06, gradient_checkpointing=False,
    base_memo=False, trained_layers=None, quantile_shares=None, gauge_prompts=0)
_, step, curve = learn(policy.eval(), Policy(lm()).eval(), rows, training, iteration=0, iterations=1,
    precision="fp32", seed_name="1/test", memory_mb=4000, memo=None, resume=None)
number = distributed.rank()
print(number, distributed.world(), step, curve[-1]["loss"], sep=",", file=open(f"{sys.argv[1]}.{number}", "w"))
save_file({n: p.detach().clone() for n, p in policy.named_parameters()}, f"{sys.argv[1]}.{number}.safetensors")
distributed.leave()
"""


def learn(folder: Path, name: str, processes: int) -> list[list[str]]:
    """What each process printed."""
    script = folder / "learn.py"
    script.write_text(LEARN)
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    run = [sys.executable, *(several if processes > 1 else []), str(script), str(folder / name)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [(folder / f"{name}.{i}").read_text().strip().split(",") for i in range(processes)]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    ((_, _, steps, loss),) = learn(tmp_path, "one", 1)
    two = learn(tmp_path, "two", 2)
    assert [(number, world) for number, world, _, _ in two] == [("0", "2"), ("1", "2")]
    one = load_file(tmp_path / "one.0.safetensors")
    for number, _, their_steps, their_loss in two:
        assert their_steps == steps == "3"
        assert float(their_loss) == pytest.approx(float(loss), abs=1e-5)
        found = load_file(tmp_path / f"two.{number}.safetensors")
        for name, parameter in one.items():
            # float32 sums in another order, magnified by Adam where a gradient is almost zero
            assert (found[name] - parameter).abs().max() < 1e-4, name
    first, second = (load_file(tmp_path / f"two.{i}.safetensors") for i in (0, 1))
    assert all((first[name] == second[name]).all() for name in first)  # they stay alike
