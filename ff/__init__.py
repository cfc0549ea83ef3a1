"""Forward-Forward networks: trained layer by layer, measured, and compared, without backpropagation."""

__version__ = "0.1.0"
