"""Which picture, and which number, to believe: intervals, what a map shows, and where it points."""
