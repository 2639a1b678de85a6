"""One machine: JSONL transcripts, one SQLite control store, kernel locks."""
