"""From a host batch to what a network sees, on the device."""
