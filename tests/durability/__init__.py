"""Nothing acknowledged is lost: servers that are killed, cut off from power, and failed by their disk, under load.

docs/guarantees.md says what each test proves, and its sizes.
"""
