"""Side-by-side measurements: the frame meter, and the tap beside nginx and a relay of WebSocket messages."""
