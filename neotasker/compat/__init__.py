"""What only older programs ask for."""
