"""The commands of `ff`, a module each: `add_arguments` says what it takes, and `run` does it."""
