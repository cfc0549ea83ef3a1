"""What the rules of the workflow call: the grid, a job's surroundings, failures, GPUs."""
