"""A whole pipeline on real speech: a film goes in, the film with subtitles comes out. See README.md."""
