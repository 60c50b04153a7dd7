"""How fast the stages are, beside plain implementations of the same work."""
