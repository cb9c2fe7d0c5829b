"""Sources: whatever sees WebSockets. Each turns what it sees into events for a Sink."""
