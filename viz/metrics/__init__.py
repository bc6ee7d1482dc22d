"""Which picture, and which number, to believe: intervals so far."""
