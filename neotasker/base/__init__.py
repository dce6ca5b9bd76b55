"""What knows nothing of the rest: priorities, progress, clocks, latches, seconds."""
