"""Several stages: a run of a job that owns them, the programs that it starts, and what it shows of them."""
