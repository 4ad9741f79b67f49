"""Networks and agents."""
