"""The insight floor: what can be derived from events. Time and randomness are arguments."""
