"""Looking at locks, strays and owners, from outside."""
