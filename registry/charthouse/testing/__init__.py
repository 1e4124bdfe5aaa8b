"""A registry for other people's tests: the real server and the real store, in this process, empty every time.

    with charthouse.testing.Registry() as registry:
        registry.push(make_chart("app", "1.2.3"), "team-a")
        subprocess.run(["helm", "pull", f"oci://{registry.host}/team-a/app", "--plain-http"], check=True)

`async with` works as well, under asyncio and trio; the pytest fixtures are in `charthouse/pytest_plugin.py`. Each file
here is a part of it, and nothing in a normal server imports any.
"""

from charthouse.testing.charts import ChartArchive, make_chart
from charthouse.testing.clock import MovableClock
from charthouse.testing.pushing import PushedChart
from charthouse.testing.records import Request
from charthouse.testing.registry import Registry

__all__ = ["ChartArchive", "MovableClock", "PushedChart", "Registry", "Request", "make_chart"]
