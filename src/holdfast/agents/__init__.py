"""How a turn is answered: one module a way of answering."""
