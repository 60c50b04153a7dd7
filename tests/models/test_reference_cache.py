from pathlib import Path

import torch

from quark.models.reference_cache import ReferenceCache

CPU = torch.device("cpu")


def test_rows_come_back_in_the_order_asked_for() -> None:
    cache, hidden = ReferenceCache(), torch.arange(12.0).view(6, 2)
    cache.add(["a", "b", "c"], [1, 3, 2], hidden)
    assert cache.missing(["c", "d", "a", "e"]) == [1, 3]
    assert torch.equal(cache.get(["c", "a"], CPU), hidden[[4, 5, 0]])


def test_only_what_is_new_is_saved(tmp_path: Path) -> None:
    one, two, none = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "none"))
    hidden = torch.randn(5, 4).bfloat16()
    first = ReferenceCache()
    first.add(["a", "b"], [2, 3], hidden)
    first.save(one)
    second = ReferenceCache([one])
    second.add(["c"], [1], hidden[:1])
    second.save(two)
    assert ReferenceCache([two]).missing(["a", "b", "c"]) == [0, 1]
    both = ReferenceCache([one, two])
    assert both.missing(["a", "b", "c"]) == []
    assert torch.equal(both.get(["b", "c"], CPU), hidden[[2, 3, 4, 0]])
    both.save(none)
    assert ReferenceCache([none]).missing(["a"]) == [0]


def test_gradients_are_not_kept() -> None:
    cache = ReferenceCache()
    cache.add(["a"], [1], torch.ones(1, 2, requires_grad=True))
    assert not cache.get(["a"], CPU).requires_grad
