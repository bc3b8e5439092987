"""One service for all stream servers: the steps that a connection passes, its session."""
