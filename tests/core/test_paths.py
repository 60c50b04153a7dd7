from pathlib import Path

import pytest

from quark.core import paths


def test_the_functions_and_the_patterns_name_the_same_folders() -> None:
    run = paths.run(Path("results"), "toxicity", "quark", 11)
    place = {"task": "toxicity", "method": "quark", "seed": 11, "iteration": 3}
    place |= {"split": "provoking", "decoding": "nucleus"}
    assert str(run) == f"results/{paths.RUN}".format(**place)
    assert str(paths.iteration(run, 3)) == f"results/{paths.ITERATION}".format(**place)
    found = paths.evaluation(run, "provoking", "nucleus")
    assert str(found) == f"results/{paths.EVALUATION}".format(**place)
    assert found.parent == Path(f"results/{paths.PREDICTED}".format(**place))


def test_what_is_done_is_found_in_order(tmp_path: Path) -> None:
    run = paths.run(tmp_path, "toxicity", "quark", 1)
    for number in (10, 2, 0):
        (folder := paths.iteration(run, number) / "checkpoint").mkdir(parents=True)
        if number:  # the first was not written to its end
            (folder / "checkpoint.json").touch()
    assert list(paths.checkpoints(run)) == [2, 10]
    (folder := paths.evaluation(run, "provoking", "nucleus")).mkdir(parents=True)
    assert paths.evaluations(run) == []
    (folder / "settings.json").touch()
    assert paths.evaluations(run) == [folder]


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("r/toxicity/ppo/seed-1/samples.json", ("toxicity", "ppo", 1, "samples")),
        ("/a/seed-7/t/m/seed-12/iteration-0/training.json", ("t", "m", 12, "iteration-0/training")),
        ("toxicity/ppo/samples.json", None),
        ("seed-1/samples.json", None),
        ("toxicity/ppo/seed-1", None),
    ],
)
def test_a_file_says_what_it_is_of(file: str, found: tuple[str, str, int, str] | None) -> None:
    assert paths.named(Path(file)) == found
