"""What is measured on generations, as pure functions of numpy.

They return one value for each prompt where they can, so that intervals can be bootstrapped over
prompts (`bootstrap.interval`).
"""
