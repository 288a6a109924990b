"""A run of a job: who owns it, which stages belong to it, and how it ends."""
