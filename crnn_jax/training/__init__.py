"""Training: state, step, optimiser, devices, loop, checkpoints, logs."""
