"""Whether a stage has to run again: what it depends on, what that is by now, and what its files are."""
