"""What the port asks, by subject: each method is one block under the world's mutex."""
