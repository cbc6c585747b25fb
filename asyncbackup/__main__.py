"""``python -m asyncbackup``."""

from asyncbackup.cli import main

main()
