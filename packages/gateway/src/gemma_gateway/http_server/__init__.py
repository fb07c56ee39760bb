"""The HTTP/1.1 server that runs the application: connections, parsing, timeouts, shutdown."""
