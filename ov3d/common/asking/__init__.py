"""From an index and a prompt to an answer, with NumPy alone."""
