import pytest

from quark.core.shards import WHOLE, Shard, ShardError


def test_shards_share_out_the_batches() -> None:
    batches = list(range(10))
    parts = [list(Shard(i, 4).of(batches)) for i in range(1, 5)]
    assert parts == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]
    assert list(WHOLE.of(batches)) == batches
    assert list(Shard(3, 3).of([0, 1])) == []  # more shards than batches


def test_a_shard_is_cut_further() -> None:
    batches = list(range(23))
    shard = Shard(2, 3)
    parts = [list(shard.part(i, 4).of(batches)) for i in range(1, 5)]
    assert sorted(batch for part in parts for batch in part) == list(shard.of(batches))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert WHOLE.part(2, 5) == Shard(2, 5)


def test_parse() -> None:
    assert Shard.parse("2-of-8") == Shard(2, 8) and Shard.parse("1-of-1") == WHOLE
    for text in ("0-of-2", "3-of-2", "1/2", "", "a-of-b"):
        with pytest.raises(ShardError, match="write it as 2-of-8"):
            Shard.parse(text)
