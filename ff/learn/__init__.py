"""Learning: labels, networks, training, checkpoints, resuming, and the trained network at work."""
