"""Its only stage."""
