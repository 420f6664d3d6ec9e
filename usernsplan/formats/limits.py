"""How long a line the readers of /etc/subuid and /etc/subgid take, and how small a range."""

# shadow reads lines into a buffer of this size and rejects what does not fit.
LINE_LIMIT = 1024
# bufio.MaxScanTokenSize of Go: with a line as long as that bufio.Scanner stops.
SCANNER_LIMIT = 65536
# Incus and LXD use no range that cannot hold the ids that POSIX programs expect, 0 to 65535.
INCUS_LEAST = 65536
