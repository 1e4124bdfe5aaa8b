"""What the registry knows of charts: archive, Chart.yaml, provenance, versions, and the rules they must keep.

Values in, values out: no web framework, no database, no event loop, no clock. `helper` alone starts a process.
"""
