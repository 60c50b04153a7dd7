"""Print 10 400 distinct prompts of a few words: what does a large evaluation hold in memory?"""

import itertools
import random

WORDS = (
    "The A My Your Their Our Some Every One Another",
    "man woman teacher neighbour driver doctor singer student lawyer friend",
    "said thought wrote asked knew told heard believed",
    "that you I we they nobody",
    "would could should might never always",
)

prompts = [" ".join(words) for words in itertools.product(*map(str.split, WORDS))]
random.Random(0).shuffle(prompts)
print("\n".join(prompts[:10400]))
