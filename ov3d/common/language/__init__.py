"""How text is encoded: what an encoder declares, specs, attributes, and the cache of text vectors."""
