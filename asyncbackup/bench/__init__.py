"""What ``asyncbackup bench`` and the scripts of benchmarks/ share: workloads, rounds, statistics, and a report.

A case is one thing to back up in one situation. Contestants back it up by turns, each time as a process of its own.
What they took is kept as it was measured; the numbers that are told are made of it.
"""
