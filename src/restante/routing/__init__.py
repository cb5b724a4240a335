"""Address to decision: decisions 2, 3 and 4, as a function of look-ups and settings alone."""
