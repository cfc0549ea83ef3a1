"""What a trained network is worth: scores, distributions, early exit."""
