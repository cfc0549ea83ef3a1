"""What the rules of the workflow call: the plan of a call, its grid, resources, code, failures, GPUs."""
