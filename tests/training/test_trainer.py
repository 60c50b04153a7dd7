"""The trainer on a least-squares problem whose gradient is known: loss_i = (w x_i - y_i)^2."""

import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quark.config import Optimisation, Training
from quark.core.seeds import stream
from quark.training.trainer import NonFiniteLossError, Rows, Trainer, deal, learning_rate_factor

X, Y = torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 3, 5, 9])
IDS = ["a", "b", "c", "d"]


def make(training: Training, micro_batch: int, **changed: object) -> Trainer:
    how = Optimisation.model_validate(
        training.model_dump(include=set(Optimisation.model_fields)) | changed
    )
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    return Trainer(
        module, how, lambda _: 0.1, total_steps=4, lengths=[3, 1, 2, 9], micro_batch=micro_batch
    )


def squares(trainer: Trainer, seen: list[list[int]]):
    def loss(part: list[int]) -> dict[str, Tensor]:
        seen.append(part)
        error = (trainer.module.weight[0, 0] * X - Y)[part]
        return {"loss": error.square().sum(), "absolute": error.detach().abs().sum()}

    return loss


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_one_step_equals_adam(training: Training, micro_batch: int) -> None:
    trainer, seen = make(training, micro_batch, max_grad_norm=None, warmup_steps=1), []
    terms = trainer.step([0, 1, 3], 3, IDS, squares(trainer, seen))
    assert [i for part in seen for i in part] == [1, 0, 3]  # by length
    assert terms["loss"] == pytest.approx((1 + 1 + 25) / 3)
    assert terms["absolute"] == pytest.approx((1 + 1 + 5) / 3)
    assert terms["grad_norm"] == pytest.approx(2 * (1 + 2 + 20) / 3)
    assert terms["step"] == 0 and terms["rate_factor"] == 0.5
    # Adam's first step is the rate, whatever the gradient's size
    assert trainer.module.weight.item() == pytest.approx(1 + 0.1 * 0.5, abs=1e-6)


def test_clipping(training: Training) -> None:
    trainer = make(training, 4, max_grad_norm=1e-3, eps=1.0, warmup_steps=0)
    terms = trainer.step([0, 1], 2, IDS, squares(trainer, []))
    assert terms["grad_norm"] == pytest.approx(3.0)  # as it was before
    # a gradient of 1e-3 beside an eps of 1: the step is rate x 1e-3
    assert trainer.module.weight.item() == pytest.approx(1 + 0.1 * 1e-3, rel=1e-6)


def test_resumed_steps_equal_one_run(training: Training) -> None:
    batches = ([0, 1], [2, 3], [1, 2], [0, 3])
    whole, half = make(training, 4), make(training, 4)
    for batch in batches:
        whole.step(batch, 2, IDS, squares(whole, []))
    for batch in batches[:2]:
        half.step(batch, 2, IDS, squares(half, []))
    again = Trainer(
        half.module,
        half.how,
        lambda _: 0.1,
        total_steps=4,
        lengths=[1] * 4,
        micro_batch=4,
        resume=(half.moments, half.taken),
    )
    for batch in batches[2:]:
        again.step(batch, 2, IDS, squares(again, []))
    assert torch.equal(again.module.weight, whole.module.weight) and again.taken == 4


def test_out_of_memory_halves_the_micro_batch(
    training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, twin = make(training, 4), make(training, 4)
    seen: list[list[int]] = []
    enough = squares(trainer, seen)

    def tight(part: list[int]) -> dict[str, Tensor]:
        if len(part) > 2:
            raise torch.OutOfMemoryError("full")
        return enough(part)

    with caplog.at_level(logging.WARNING):
        found = trainer.step([0, 1, 2, 3], 4, IDS, tight)
    assert trainer.micro_batch == 2 and "going on with 2 rows" in caplog.text
    assert found == pytest.approx(twin.step([0, 1, 2, 3], 4, IDS, squares(twin, [])))
    assert torch.equal(trainer.module.weight, twin.module.weight)


def test_out_of_memory_with_one_row_is_an_error(training: Training) -> None:
    def full(_: list[int]) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        make(training, 4).step([0, 1], 2, IDS, full)


def test_nan_names_the_rows(training: Training) -> None:
    trainer = make(training, 4)

    def broken(part: list[int]) -> dict[str, Tensor]:
        return {"loss": trainer.module.weight.sum() * torch.nan}

    with pytest.raises(NonFiniteLossError, match=r"loss is nan.*Rows: b, c$"):
        trainer.step([1, 2], 2, IDS, broken)


@pytest.mark.parametrize("bound", [None, 1.0])
def test_an_infinite_gradient_changes_nothing(training: Training, bound: float | None) -> None:
    trainer = make(training, 4, max_grad_norm=bound)
    before = trainer.module.weight.detach().clone()

    def steep(part: list[int]) -> dict[str, Tensor]:
        return {"loss": (trainer.module.weight - trainer.module.weight.detach()).abs().sqrt().sum()}

    with pytest.raises(NonFiniteLossError, match=r"gradient's norm is .*Rows: b, c$"):
        trainer.step([1, 2], 2, IDS, steep)
    assert torch.equal(trainer.module.weight, before)


def test_learning_rate_factor() -> None:
    found = [learning_rate_factor(step, 3, 8) for step in range(9)]
    # warm-up in quarters, then down by fifths from 1
    assert found == [0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2, 0]
    assert learning_rate_factor(0, 0, 1) == 1


def test_dealing() -> None:
    places = torch.arange(3, 8).numpy()
    dealt = deal(places, 13, stream("deal")).tolist()
    assert sorted(dealt[:5]) == sorted(dealt[5:10]) == places.tolist() and len(set(dealt[10:])) == 3
    assert deal(places, 0, stream("deal")).tolist() == []


def test_values_of_tokens_go_with_their_rows() -> None:
    values = torch.arange(6.0)
    rows = Rows(
        ["a", "b", "c"],
        [[1], [2], [3]],
        [[4, 5], [6], [7, 8, 9]],
        np.array([0, 1, 0], dtype=np.int32),
        {"advantage": values, "other": -values},
    )
    taken = rows.take([2, 0])
    assert taken.responses == [[7, 8, 9], [4, 5]]
    assert taken.of_tokens["advantage"].tolist() == [3, 4, 5, 0, 1]
    assert taken.of_tokens["other"].tolist() == [-3, -4, -5, 0, -1]
    assert taken.take([1]).of_tokens["advantage"].tolist() == [0, 1]
    assert not rows._replace(of_tokens={}).take([1]).of_tokens
