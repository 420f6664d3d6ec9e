"""``python -m usernsplan``."""

from usernsplan.cli import main

main()
