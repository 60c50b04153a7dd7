"""Tables as text; `test_make.py` has those that are made."""

from quark.reporting.tables.text import printable


def test_what_would_move_the_cursor_is_not_printed() -> None:
    assert printable("a\x1b[2J\tb\nc\u202ed\u00a0e") == "a\ufffd[2J\ufffdb\nc\ufffdd\u00a0e"
