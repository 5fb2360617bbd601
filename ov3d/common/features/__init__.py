"""2D features: crops, extraction, the store, refinement."""
