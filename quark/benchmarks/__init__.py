"""The speed of the stages, compared with plain implementations of the same work."""
