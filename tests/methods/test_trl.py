"""The losses of GRPO, RLOO, DPO and KTO against those of TRL, the library that most people use.

TRL's trainers compute their losses in a method of their own. Here it runs on given
log-probabilities in place of a model's: the rest of the trainer is a stand-in.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from learning import numbers, settings
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from quark.methods import dpo, grpo, kto, rloo

LENGTHS = torch.tensor([5, 2, 4, 1, 5, 3])
MASK = (torch.arange(5) < LENGTHS[:, None]).double()


def trainer(**known: Any) -> Any:
    """A trainer of one process that knows these settings; its logs are thrown away."""
    made = MagicMock(_metrics=defaultdict(lambda: defaultdict(list)), aux_loss_enabled=False)
    made.accelerator.device = torch.device("cpu")
    made.accelerator.num_processes = 1
    made.accelerator.gather = made.accelerator.gather_for_metrics = lambda x: x
    made.accelerator.reduce = lambda x, **_: x
    made.current_gradient_accumulation_steps = 1
    for name, value in known.items():
        setattr(made, name, value)
    return made


def policy_inputs() -> dict[str, torch.Tensor]:
    ids = torch.ones(len(LENGTHS), 5, dtype=torch.long)
    one = torch.ones(len(LENGTHS), 1, dtype=torch.long)
    return {"prompt_ids": one, "prompt_mask": one, "completion_ids": ids, "completion_mask": MASK}


@pytest.mark.parametrize("of_length", [True, False])
def test_grpo(of_length: bool) -> None:
    """TRL's `grpo` divides by each response's length, `dr_grpo` by a fixed one."""
    logprob, old, ref = numbers(3, *MASK.shape)
    (advantage,) = numbers(1, len(LENGTHS))
    theirs = trainer(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprob, MASK, None),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.5,
        epsilon_low=0.2,
        epsilon_high=0.2,
        loss_type="grpo" if of_length else "dr_grpo",
        max_completion_length=5,
        use_vllm=False,
        _entropy_bonus_enabled=False,
    )
    theirs.args.delta, theirs.args.use_bias_correction_kl = None, False
    given = {"advantages": advantage, "old_per_token_logps": old, "ref_per_token_logps": ref}
    expected = GRPOTrainer._compute_loss(theirs, MagicMock(), policy_inputs() | given)

    real = MASK.bool()
    share = 1 / (LENGTHS if of_length else LENGTHS.max().expand(len(LENGTHS))).double()
    of_token = [x[:, None].expand_as(MASK)[real] for x in (advantage, share)]
    how = settings("grpo", clip=0.2, kl_coef=0.5)
    found = grpo.losses(logprob[real], old[real], ref[real], *of_token, how)
    torch.testing.assert_close(found["loss"] / len(LENGTHS), expected)


def test_rloo() -> None:
    (logprob,) = numbers(1, *MASK.shape)
    old, advantage = numbers(2, len(LENGTHS))
    theirs = trainer(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprob, MASK, None),
        epsilon_low=0.2,
        epsilon_high=0.2,
    )
    given = {"advantages": advantage, "old_logps": old}
    expected = RLOOTrainer._compute_loss(theirs, MagicMock(), policy_inputs() | given)
    found = rloo.losses((logprob * MASK).sum(1), old, advantage, 0.2)
    torch.testing.assert_close(found["loss"] / len(LENGTHS), expected)


def answers(logprob: torch.Tensor) -> Callable[..., Any]:
    """A model that gives each token of a response these log-probabilities."""
    rest = {"entropy": MASK, "mean_logits": MASK, "is_top1": MASK.bool()}
    return lambda **_: MagicMock(log_probs=logprob * MASK, **rest)


def whole() -> dict[str, torch.Tensor]:
    """Rows of one prompt token and a response."""
    mask = torch.cat([torch.zeros(len(MASK), 1), MASK], dim=1)
    ids = torch.ones(len(MASK), 6, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": ids, "completion_mask": mask}


def test_dpo() -> None:
    """The first half of TRL's rows are the chosen ones."""
    (logprob,) = numbers(1, *MASK.shape)
    chosen, rejected = numbers(2, len(LENGTHS) // 2)
    theirs = trainer(
        beta=0.7,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        use_weighting=False,
    )
    given = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    expected = DPOTrainer._compute_loss(theirs, answers(logprob), whole() | given, False)
    best, worst = (logprob * MASK).sum(1).chunk(2)
    found = dpo.losses((best - chosen) - (worst - rejected), torch.zeros(3), 0.7, 0.0)
    torch.testing.assert_close(found["loss"] / 3, torch.as_tensor(expected))


@pytest.mark.parametrize("kl", [-0.5, 0.2])
def test_kto(kl: float) -> None:
    (logprob,) = numbers(1, *MASK.shape)
    ref, pair = numbers(2, len(LENGTHS))
    wanted = torch.tensor([True, False, True, True, False, False])
    theirs = trainer(
        _compute_kl_logps=lambda *_: pair + kl,
        calculate_KL=True,
        precompute_ref_logps=True,
        loss_type="kto",
        beta=0.7,
        desirable_weight=1.0,
        undesirable_weight=1.0,
    )
    given = {"label": wanted, "ref_logps": ref, "ref_KL_logps": pair}
    expected = KTOTrainer._compute_loss(theirs, answers(logprob), whole() | given, False)
    ratio = (logprob * MASK).sum(1) - ref
    found = kto.losses(ratio, 2 * wanted.double() - 1, kl, 0.7)
    torch.testing.assert_close(found["loss"] / len(LENGTHS), expected)
