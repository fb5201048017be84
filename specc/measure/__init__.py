"""What the device of this machine really does: kernels and collectives of torch, timed."""
