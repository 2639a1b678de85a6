"""What the port asks, by subject: each method is one transaction or one look-up."""
