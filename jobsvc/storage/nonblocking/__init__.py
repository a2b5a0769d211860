"""System calls that fail instead of blocking; the event loop may call them."""
