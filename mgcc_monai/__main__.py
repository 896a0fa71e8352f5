"""``python -m mgcc_monai``."""

from mgcc_monai.cli import main

main()
