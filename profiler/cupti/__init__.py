"""What gputap knows of CUPTI: its records as facts, and how to read them outside the target."""
