"""What a stage costs: its memory and processors, as the operating system counts them."""
