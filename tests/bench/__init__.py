"""Benchmarks: us and a peer side by side in one run, with the ratio. They measure; nothing fails on a clock.

python -m tests.bench.table         the table of README: all that is fast or slow, beside its peers (as root)
python -m tests.bench.before DIR    one more name beside 10,000 allocations, beside the version of the package in DIR
python -m tests.bench.startup       every command, in CPU time, beside a bare interpreter; and what importing a library takes
python -m tests.bench.whois         one id and a million lines among 10,000 allocations, beside grep, awk and sort
python -m tests.bench.mount         a mount over 300,000 files, beside mount --bind and chown -hR (as root)
python -m tests.bench.volumes       volumes over 1,000 idmapped mounts, beside no mounts (as root)
python -m tests.bench.published     newuidmap beside 10,000 published ranges, beside 10,000 accounts (as root)
"""
