"""What is measured against what. Run ``python -m benchmarks``; each module's docstring says what it measures.

The modules that start and time other processes import the standard library alone: a child's peak memory, as the
kernel counts it, is never below that of the process that started it.
"""
