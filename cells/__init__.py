"""What every cell is and has: vocabulary, wire format, the loop, a store, a broker, identity, the command line."""
