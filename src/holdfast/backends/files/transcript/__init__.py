"""Transcripts: one JSONL file a session."""
