"""trio."""
