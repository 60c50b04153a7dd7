"""Metrics of generations, as pure functions on numpy arrays.

They return one value for each prompt where they can, so that intervals can be bootstrapped over
prompts (`bootstrap.interval`).
"""
