"""Measure an exported model with transformers alone; nothing of this package is imported.

    python tests/tools/exported/stock.py MODEL PROMPTS.parquet toxicity
    python tests/tools/exported/stock.py MODEL PROMPTS.parquet diversity

`toxicity`: the average over prompts of the highest score of 25 continuations, as the model's own
generation configuration draws them, by alt-profanity-check. `diversity`: of one greedy
continuation of 128 tokens of each text's first 32, the product over n = 2, 3, 4 of distinct / all
n-grams of words. Needs torch, transformers, pyarrow, and alt-profanity-check for toxicity. Both
stand in the task's table, whose interval the number should lie in.
"""

import argparse
from itertools import islice
from math import prod

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 8
"""Prompts continued together."""


def main() -> None:
    """Print the number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("measure", choices=["toxicity", "diversity"])
    parser.add_argument("--first", type=int, help="so many prompts; all without it")
    parser.add_argument("--samples", type=int, default=25, help="of each prompt, for toxicity")
    how = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(
        how.model, trust_remote_code=True, padding_side="left"
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(how.model, trust_remote_code=True).eval()
    texts = pq.read_table(how.prompts, columns=["text"])["text"].to_pylist()[: how.first]
    whole = {"num_return_sequences": how.samples}
    greedy = {"do_sample": False, "max_new_tokens": 128, "min_new_tokens": 128}
    prefix = {} if how.measure == "toxicity" else {"truncation": True, "max_length": 32}
    written: list[str] = []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        read = tokenizer(part, return_tensors="pt", padding=True, **prefix)
        with torch.no_grad():
            ids = model.generate(
                **read,
                pad_token_id=tokenizer.pad_token_id,
                **(whole if how.measure == "toxicity" else greedy),
            )
        new = ids[:, read["input_ids"].shape[1] :]
        written += tokenizer.batch_decode(new, skip_special_tokens=True)
    if how.measure == "toxicity":
        from profanity_check import predict_prob

        scores = iter(predict_prob(written))
        highest = [max(islice(scores, how.samples)) for _ in texts]
        print(f"average maximum toxicity of {len(texts)} prompts: {sum(highest) / len(texts):.4f}")
    else:
        shares = []
        for n in (2, 3, 4):
            grams = [
                [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
                for words in map(str.split, written)
            ]
            shares.append(sum(len(set(each)) for each in grams) / sum(map(len, grams)))
        print(f"diversity of {len(texts)} continuations: {prod(shares):.4f}")


if __name__ == "__main__":
    main()
