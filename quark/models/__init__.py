"""Language models and what is attached to them: reward tokens, adapters, caches, checkpoints."""
