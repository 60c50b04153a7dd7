"""Text from models: the sampler, what decodes, and log-probabilities of given text."""
