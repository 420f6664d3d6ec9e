"""Text <-> values, for every file that we read or write. No I/O: bytes come in, bytes go out."""
