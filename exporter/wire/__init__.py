"""The wire floor: bytes in, events out. No sockets, and no clock of its own."""
