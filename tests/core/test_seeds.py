from quark.core.seeds import ranks, stream

NUMBERS = [542, 129, 799, 271]


def test_a_name_fixes_the_numbers() -> None:
    """The numbers themselves: a change of the generator would change every published result."""
    assert stream("1/toxicity", "row", 2).integers(0, 1000, 4).tolist() == NUMBERS
    assert stream("1/toxicity/row/2").integers(0, 1000, 4).tolist() == NUMBERS  # joined by /
    assert stream("1/toxicity/row/3").integers(0, 1000, 4).tolist() != NUMBERS


def test_ranks_belong_to_rows() -> None:
    found = ranks("seed", ["a", "b", "c"])
    assert ranks("seed", ["c", "a", "b"]).tolist() == found[[2, 0, 1]].tolist()
    assert ranks("other", ["a", "b", "c"]).tolist() != found.tolist()
    assert found.dtype == "uint64" and len(set(found.tolist())) == 3
    assert found[0] == 13911588839201189348  # a change of the hash would change every tie
    assert ranks("seed", []).shape == (0,)
