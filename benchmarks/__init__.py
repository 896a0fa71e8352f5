"""How fast the project is: one file per question, ``python -m benchmarks`` for the table."""
