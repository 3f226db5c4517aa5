"""`python -m emseg.cli`, which torchrun starts."""

from emseg.cli import main

main()
