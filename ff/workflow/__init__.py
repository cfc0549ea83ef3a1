"""What the rules of the workflow call: the grid, failures, GPUs."""
