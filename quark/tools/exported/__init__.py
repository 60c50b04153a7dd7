"""Code that an exported model carries with it; it needs nothing of this package."""
