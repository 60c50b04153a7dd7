"""Text from models: the sampler, the decoders, and log-probabilities of given text."""
