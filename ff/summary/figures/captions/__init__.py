"""The captions of the figures, one file each."""
