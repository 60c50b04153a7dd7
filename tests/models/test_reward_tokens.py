from collections.abc import Callable

import pytest
import torch
from oracle import LINEAR, SINK, plain_logits, steered_logits

from quark.config import RewardTokens
from quark.generation.decoding import Plain
from quark.maths.objective import Coefficients, fused_token_loss
from quark.models.decode_state import read, response_hidden
from quark.models.lm import Policy
from quark.models.reward_tokens import new_reward_tokens

Make = Callable[..., Policy]
PROMPT, RESPONSE = [5, 6, 7], [3, 4, 8, 2]


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


# ------------------------------------------------------------------------------- linear
def test_places_of_the_quantiles(make_policy: Make) -> None:
    tokens = [make_policy(count, form=LINEAR).reward_tokens for count in (1, 2, 5)]
    assert [each.place.tolist() for each in tokens] == [[1], [1, -1], [1, 0.5, 0, -0.5, -1]]
    assert [each.silent for each in tokens] == [None, None, 2]


@pytest.mark.parametrize("place", [1.0, -1.0, 0.5, 3.0])
def test_the_form(linear_policy: Policy, place: float) -> None:
    """Steered hidden states, and the merged output embeddings, against the equation."""
    tokens = linear_policy.reward_tokens
    wanted = steered_logits(linear_policy, PROMPT, RESPONSE, place)[:-1]
    hidden = response_hidden(linear_policy, [PROMPT], [RESPONSE])
    by_state = (hidden + tokens.shift(hidden, place)) @ linear_policy.head.T
    by_token = (hidden + tokens.shift(hidden, torch.full((4,), place))) @ linear_policy.head.T
    by_head = hidden @ tokens.merged_head(linear_policy.head, place).T
    for found in (by_state, by_token, by_head):
        # float32 logits of size 10 to 60
        torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=1e-4)


def test_a_steered_policy_is_a_plain_model(linear_policy: Policy) -> None:
    """The language model itself then gives the logits; its hidden states are the base model's."""
    wanted = steered_logits(linear_policy, PROMPT, RESPONSE, 2.0)
    before = response_hidden(linear_policy, [PROMPT], [RESPONSE])
    head = linear_policy.head.clone()
    linear_policy.steer(2.0)
    assert linear_policy.reward_tokens is None and torch.equal(linear_policy.base_head, head)
    found = plain_logits(linear_policy, PROMPT, RESPONSE)
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=1e-4)  # as above
    assert torch.equal(response_hidden(linear_policy, [PROMPT], [RESPONSE]), before)
    assert torch.equal(linear_policy.embeddings.weight[5], linear_policy.embed(torch.tensor(5)))


def test_place_0_is_the_base_model_bit_for_bit(make_policy: Make, linear_policy: Policy) -> None:
    base, tokens = make_policy(0), linear_policy.reward_tokens
    hidden = response_hidden(base, [PROMPT], [RESPONSE])
    assert not tokens.shift(hidden, torch.zeros(4)).any()
    assert torch.equal(tokens.merged_head(base.head, 0.0), base.head)
    linear_policy.steer(0.0)
    wanted = plain_logits(base, PROMPT, RESPONSE)
    assert torch.equal(plain_logits(linear_policy, PROMPT, RESPONSE), wanted)


def test_untrained_tokens_are_the_base_model(make_policy: Make) -> None:
    policy = make_policy(form=LINEAR)
    policy.steer()
    assert torch.equal(policy.head, make_policy(0).head)


def test_a_place_is_an_extrapolation(linear_policy: Policy) -> None:
    """Logits at place c are base + c/2 (best - worst)."""
    base, best, worst, far = (
        steered_logits(linear_policy, PROMPT, RESPONSE, place) for place in (0, 1, -1, 3)
    )
    torch.testing.assert_close(base + 1.5 * (best - worst), far)


def test_gradient_of_the_map(make_policy: Make, linear_policy: Policy) -> None:
    """Of the objective, against differences of the loss in float64."""
    tokens = linear_policy.reward_tokens.double()
    hidden = response_hidden(linear_policy, [PROMPT], [RESPONSE]).detach()
    place, targets = torch.tensor([1.0, 0.5, -0.5, -1.0]), torch.tensor(RESPONSE)
    head = linear_policy.head.detach().double()
    weigh = Coefficients(0.3, 0.1, "policy_to_base")

    def loss() -> torch.Tensor:
        shift = place[:, None].double() * (hidden.double() @ tokens.map)
        found = fused_token_loss(shift, head, hidden.double(), head, targets, weigh, is_shift=True)
        return found[0]

    loss().backward()
    found = tokens.map.grad.clone()
    for row, column in ((0, 0), (3, 17), (31, 2)):
        sides = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                tokens.map[row, column] += step
                sides.append(loss().item())
                tokens.map[row, column] -= step
        slope = (sides[0] - sides[1]) / 2e-3
        # the softmax is float32: a loss of 50 is known to 1e-5
        assert found[row, column].item() == pytest.approx(slope, abs=2e-2, rel=1e-2)


def test_tokens_at_no_place_do_not_decode(linear_policy: Policy) -> None:
    with pytest.raises(ValueError, match="at no place"):
        Plain(linear_policy)


# ------------------------------------------------------------------------------- sinks
def test_the_sink_starts_at_the_base_model(make_policy: Make) -> None:
    policy = make_policy(form=SINK)
    responses = [[3, 4, 5], [6]]
    plain = response_hidden(policy, [[5, 6, 7], [8, 9]], responses)
    told = response_hidden(policy, [[101, 5, 6, 7], [103, 8, 9]], responses)
    torch.testing.assert_close(told, plain, atol=1e-5, rtol=1e-5)  # float32, other shapes


def test_the_middle_sink_stays_at_the_base_model(sink_policy: Policy) -> None:
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


def test_places_of_sinks(make_policy: Make) -> None:
    policy = make_policy(5, form=SINK)
    assert policy.reward_tokens.place.tolist() == [-1, -0.5, 0, 0.5, 1]


def test_the_oracle(sink_policy: Policy) -> None:
    """The loop that the tests compare with, against the model itself, where both apply."""
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = sink_policy.lm(ids).logits[0, 2:].detach()
    torch.testing.assert_close(plain_logits(sink_policy, [5, 6, 7], [8]), expected)
    middle = plain_logits(sink_policy, [102, 5, 6, 7], [8])  # no shift
    torch.testing.assert_close(middle, expected, atol=1e-4, rtol=1e-4)  # logits of size 10
