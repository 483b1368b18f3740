"""The workload of `gputap demo`."""
