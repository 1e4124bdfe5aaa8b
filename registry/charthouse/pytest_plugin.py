"""`chart_registry` and `chart_registry_session`, for every project that has pytest and charthouse installed.

pytest imports this in each of its runs, so what a registry needs is imported by the first test that asks for one.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from charthouse.testing import Registry

MARKER = "chart_registry"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(MARKER, "Settings of the registries of tests, such as policy=charts.", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}(**settings): what the test's registry is started with.")


@pytest.fixture
def chart_registry(request: pytest.FixtureRequest) -> "Iterator[Registry]":
    """A Helm chart registry of the test's own, empty. `@pytest.mark.chart_registry(policy="charts")` sets it up."""
    marked = request.node.get_closest_marker(MARKER)
    if marked and marked.args:
        pytest.fail(f"@pytest.mark.{MARKER} takes settings by their names, such as policy='charts'", pytrace=False)
    with _registry({**_from_ini(request.config), **(marked.kwargs if marked else {})}) as registry:
        yield registry


@pytest.fixture(scope="session")
def chart_registry_session(request: pytest.FixtureRequest) -> "Iterator[Registry]":
    """One for the whole session: what a test leaves in it, the next one finds."""
    with _registry(_from_ini(request.config)) as registry:
        yield registry


def _registry(settings: Mapping[str, Any]) -> "Registry":
    from charthouse.settings import SettingsError
    from charthouse.testing import Registry

    try:
        return Registry(**settings)
    except SettingsError as error:
        pytest.fail(f"{MARKER}: {error}", pytrace=False)


def _from_ini(config: pytest.Config) -> dict[str, Any]:
    words = [word.partition("=") for word in config.getini(MARKER)]
    if wrong := ["".join(word) for word in words if not word[1]]:
        pytest.fail(f"{MARKER} in {config.inipath}: write {wrong[0]}=VALUE", pytrace=False)
    return {name.replace("-", "_"): value for name, _, value in words}
