"""What is measured on generations, as pure functions; layer 3, numpy only.

They return one value for each prompt where they can, so that intervals can be bootstrapped over
prompts (`bootstrap.interval`).
"""
