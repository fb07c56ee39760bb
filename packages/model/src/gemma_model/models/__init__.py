"""Model families; each is a package of its own."""
