import pytest
import torch
from oracle import plain_logits

from quark.models.decode_state import PromptLengthError, check_lengths, read, response_hidden
from quark.models.lm import Policy

PROMPTS = [[5, 6, 7, 8, 9], [8, 9], [3, 4, 5], [2]]
RESPONSES = [[3, 4, 5], [6], [7, 8], [4, 5, 6]]


@pytest.mark.parametrize("token", [None, 0, 2])
def test_hidden_states_predict_the_responses(
    policy: Policy, sink_policy: Policy, token: int | None
) -> None:
    for one in (policy, sink_policy):
        prompts = [one.condition(ids, token) for ids in PROMPTS]
        found = response_hidden(one, prompts, RESPONSES) @ one.head.T
        rows = zip(prompts, RESPONSES, strict=True)
        expected = torch.cat([plain_logits(one, p, r)[:-1] for p, r in rows])
        # float32 in another order; logits here are of size 10
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_responses_of_one_prompt(policy: Policy) -> None:
    one = response_hidden(policy, [PROMPTS[0]] * 2 + [PROMPTS[2]], RESPONSES[:3])
    other = response_hidden(policy, [PROMPTS[0], PROMPTS[2]], RESPONSES[:3], owner=[0, 0, 1])
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)  # float32, other shapes


def test_read_on(policy: Policy) -> None:
    reading = read(policy, [[5, 6], [7]])
    reading.select(torch.tensor([1, 0, 1]))
    for column in ([3, 4, 5], [6, 7, 8]):
        ids = torch.tensor(column)[:, None]
        reading.feed(ids, torch.ones_like(ids, dtype=torch.bool))
    texts = [[7, 3, 6], [5, 6, 4, 7], [7, 5, 8]]
    expected = torch.stack([plain_logits(policy, ids, [])[0] for ids in texts])
    torch.testing.assert_close(reading.hidden @ policy.head.T, expected, atol=1e-4, rtol=1e-4)


def test_lengths(policy: Policy, sink_policy: Policy) -> None:
    check_lengths(policy, [[1], [101, 1], [1] * 60], ["a", "b", "c"], new_tokens=4)
    with pytest.raises(PromptLengthError, match=r"prompt c has 61 tokens, but needs 1 to 60"):
        check_lengths(policy, [[1], [1] * 61], ["a", "c"], new_tokens=4)
    check_lengths(sink_policy, [[1], [101, 1]], ["a", "b"], new_tokens=4)
    with pytest.raises(PromptLengthError, match=r"prompt b has 0 tokens, but needs 1 to 59"):
        check_lengths(sink_policy, [[1], [101]], ["a", "b"], new_tokens=4)
