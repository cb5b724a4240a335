"""The only code that wires everything together: supervisor, workers, signals."""
