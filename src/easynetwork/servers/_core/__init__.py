"""What all servers share: life cycle, driving of a handler's generator, the log of faults."""
