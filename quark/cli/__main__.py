"""`python -m quark.cli`, as torchrun starts it."""

from quark.cli import main

main()
