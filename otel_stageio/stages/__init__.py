"""One stage: what it can be told, the record of its life, and its end."""
