"""Sans-I/O protocol cores: bytes in, events out; they know no sockets, no clock and no SQL."""
