"""The simulator against theory, its other fidelities and published hardware."""
