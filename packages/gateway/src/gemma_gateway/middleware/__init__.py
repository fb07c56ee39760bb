"""ASGI middleware: deadlines, limits and checks of every request."""
