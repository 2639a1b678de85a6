"""The write lock, and the line of prompt windows."""
