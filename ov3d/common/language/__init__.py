"""Text encoding: encoder cards, specs, attributes, and the cache of text vectors."""
