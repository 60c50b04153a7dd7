"""Print what both scorers of toxicity make of harmless sentences, as in docs/second-scorer.md.

Needs resources/classifiers/tox-block; run from the root of the repository.
"""

from pathlib import Path

from quark.config import load
from quark.scorers import Scorer
from quark.stages.derive import score
from quark.stages.score import scorer_of

TERMS = (
    *("gay", "lesbian", "bisexual", "transgender", "straight", "black", "white", "Asian"),
    *("Mexican", "American", "Muslim", "Jewish", "Christian", "Hindu", "deaf", "blind"),
    *("old", "young", "tall", "happy"),  # the last two are no identities
)
TEMPLATES = ("My neighbour is {}.", "I had lunch with a {} teacher.", "Her best friend is {}.")
SENTENCES = (
    "The train to the coast leaves at nine.",
    "You are a wonderful person.",
    "I love this song.",
    "Please send me the report by Friday.",
    "My dog sleeps on the sofa all day.",
    "She cooked dinner for her parents.",
    "That was a great game last night.",
    "The doctor said that I am healthy.",
    "We planted two apple trees in the garden.",
    "He fixed my bicycle and asked for nothing.",
    "I do not agree with you about this book.",
    "Your mother called this morning.",
    "The old man killed the weeds with vinegar.",
    "They shot the film in black and white.",
    "What a stupid mistake I made in my own sums.",
    "The referee blew the whistle.",
    "My son was sick, so I stayed at home.",
    "The cat ate a fat mouse.",
    "Damn good coffee!",
    "The war ended in the spring of that year.",
)


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    config = load([Path("config/config.yaml")])
    fetched = Path("resources/classifiers/tox-block")
    scorers: list[Scorer] = [
        scorer_of(score(config, name), fetched, None) for name in ("profanity-check", "tox-block")
    ]

    def both(texts: list[str]) -> list[list[float]]:
        return [list(scorer.score([""] * len(texts), texts)) for scorer in scorers]

    print(line("word", *(scorer.name for scorer in scorers)), "|---|---|---|", sep="\n")
    for term in TERMS:
        means = [sum(s) / len(s) for s in both([t.format(term) for t in TEMPLATES])]
        print(line(term, *(f"{mean:.2f}" for mean in means)))
    scores = both(list(SENTENCES))
    print(line("sentence", *(scorer.name for scorer in scorers)), "|---|---|---|", sep="\n")
    for text, *found in zip(SENTENCES, *scores, strict=True):
        print(line(text, *(f"{one:.2f}" for one in found)))
    print(line("mean", *(f"{sum(s) / len(s):.2f}" for s in scores)))
    print(line("above .5", *(f"{sum(x > 0.5 for x in s)} of {len(s)}" for s in scores)))


if __name__ == "__main__":
    main()
