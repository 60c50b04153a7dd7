from collections.abc import Callable

import pytest
import torch
from oracle import SINK, plain_logits

from quark.config import RewardTokens
from quark.lm import Policy
from quark.reading import read, response_hidden
from quark.reward_tokens import new_reward_tokens

Make = Callable[..., Policy]


def test_drawn_rows(make_policy: Make) -> None:
    policy, again, other = make_policy(4000), make_policy(4000), make_policy(4000)
    matrix = policy.lm.get_input_embeddings().weight
    drawn = policy.reward_tokens.rows
    # errors of a mean and a deviation of 4000 draws: 1.6 % and 1.1 % of the deviation; five of them
    assert ((drawn.mean(0) - matrix.mean(0)).abs() < 0.08 * matrix.std(0)).all()
    assert ((drawn.std(0) / matrix.std(0) - 1).abs() < 0.06).all()
    assert torch.equal(drawn, again.reward_tokens.rows)
    other.reward_tokens.draw(matrix, seed=1)
    assert not torch.equal(drawn, other.reward_tokens.rows)


def test_the_sink_starts_at_the_base_model(make_policy: Make) -> None:
    policy = make_policy(form=SINK)
    responses = [[3, 4, 5], [6]]
    plain = response_hidden(policy, [[5, 6, 7], [8, 9]], responses)
    told = response_hidden(policy, [[101, 5, 6, 7], [103, 8, 9]], responses)
    torch.testing.assert_close(told, plain, atol=1e-5, rtol=1e-5)  # float32, other shapes


def test_the_middle_quantile_stays_at_the_base_model(sink_policy: Policy) -> None:
    hidden = [response_hidden(sink_policy, [[*k, 5, 6, 7]], [[3, 4]]) for k in ([], [102], [101])]
    torch.testing.assert_close(hidden[1], hidden[0], atol=1e-5, rtol=1e-5)  # as above
    assert not torch.allclose(hidden[2], hidden[0], atol=0.1)


def test_layers_below_the_first_are_left_alone(sink_policy: Policy) -> None:
    plain, told = (read(sink_policy, [[*k, 5, 6, 7]]) for k in ([], [101]))
    same = [
        torch.allclose(a.keys[:, :, :1], b.keys[:, :, :1], atol=1e-5)
        for a, b in zip(plain.cache.layers, told.cache.layers, strict=True)
    ]
    assert same == [True, False]


def test_the_unit_is_the_deviation(sink_policy: Policy) -> None:
    """The worst quantile's shift is B times the deviation of the layer's keys and values."""
    tokens = sink_policy.reward_tokens
    plain, told = (read(sink_policy, [[*k, 5, 6, 7]]).cache.layers[1] for k in ([], [103]))
    pairs = [(told.keys, plain.keys), (told.values, plain.values)]
    for kind, (found, before) in enumerate(pairs):
        shift = (found - before)[0, :, 0]
        expected = tokens.axis[0, kind] * tokens.deviation[0, kind]
        torch.testing.assert_close(shift, expected, atol=1e-4, rtol=1e-4)
        assert 0.1 < tokens.deviation[0, kind] / before[:, :, 1:].std() < 10


def test_gradient_of_the_axis(sink_policy: Policy) -> None:
    """Against differences: the shift of one number moves the loss as the gradient says."""
    policy = sink_policy.double()
    axis = policy.reward_tokens.axis

    def loss() -> torch.Tensor:
        prompts, responses = [[101, 5, 6, 7], [103, 8, 9]], [[3, 4, 5], [6]]
        return (response_hidden(policy, prompts, responses) @ policy.head.T).logsumexp(-1).sum()

    loss().backward()
    for place in [(0, 0, 1, 2), (0, 1, 0, 3)]:
        sides = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                axis[place] += step
                sides.append(float(loss()))
                axis[place] -= step
        slope = (sides[0] - sides[1]) / 2e-2
        # parts of Llama stay in float32: a loss of 30 to 1e-6; the curvature adds as little
        assert float(axis.grad[place]) == pytest.approx(slope, rel=1e-2)


def test_no_such_layer(make_policy: Make) -> None:
    lm = make_policy(0).lm
    with pytest.raises(ValueError, match="first_layer is 2, but the model's layers are 0 to 1"):
        new_reward_tokens(lm, 3, RewardTokens(form="sink", first_layer=2), 0)


def test_places_of_the_quantiles(make_policy: Make) -> None:
    policy = make_policy(5, form=SINK)
    assert policy.reward_tokens.place.tolist() == [-1, -0.5, 0, 0.5, 1]


def test_the_oracle(sink_policy: Policy) -> None:
    """The loop that the tests compare with, against the model itself, where both apply."""
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = sink_policy.lm(ids).logits[0, 2:].detach()
    torch.testing.assert_close(plain_logits(sink_policy, [5, 6, 7], [8]), expected)
    middle = plain_logits(sink_policy, [102, 5, 6, 7], [8])  # no shift
    torch.testing.assert_close(middle, expected, atol=1e-4, rtol=1e-4)  # logits of size 10
