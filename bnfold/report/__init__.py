"""Show records: as JSON, as a few lines of text, as a table on a terminal."""
