"""The optimiser step that all methods that train share."""
