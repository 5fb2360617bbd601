"""From an index and a prompt to an answer, using only NumPy."""
