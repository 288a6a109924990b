"""What died: what is left of it, and how it is closed."""
