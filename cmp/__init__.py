"""Compare the checkpoints of a diffusion fine-tune: see the loss, draw the same prompt at every step, take the best one along."""

__version__ = "0.1.0"
