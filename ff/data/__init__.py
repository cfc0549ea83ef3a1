"""Data sets: what is fixed about them, their files, preparation, and images on a device."""
