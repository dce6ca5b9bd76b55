"""Measure neotasker against its peers; ``python -m benchmarks`` prints the table.

How it measures is said in ``README.md``.
"""
