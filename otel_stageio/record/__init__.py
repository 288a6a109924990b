"""What a record is: the schema of ``manifest.json``, and the fold of events that makes it."""
