"""One service for all datagram servers: the table of peers, their sessions."""
