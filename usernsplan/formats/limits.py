"""The limits of the readers of /etc/subuid and /etc/subgid: line length, and size of a range."""

# shadow reads lines into a buffer of this size and rejects a line that does not fit.
LINE_LIMIT = 1024
# bufio.MaxScanTokenSize of Go: bufio.Scanner stops at a line of this length.
SCANNER_LIMIT = 65536
# Incus and LXD do not use a range that cannot hold the ids that POSIX programs expect, 0 to 65535.
INCUS_LEAST = 65536
