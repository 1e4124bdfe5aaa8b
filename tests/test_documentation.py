"""What the documentation says is so: its commands parse, its links lead somewhere, its settings are all there."""

import functools
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from charthouse import __version__
from charthouse.__main__ import command
from charthouse.settings import FIELDS, PREFIX, load

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
}
CONFIGURATION = PAGES["docs/configuration.md"]

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:[A-Z_]+=\S* )*(?:uvx )?(charthouse(?: .*)?)")
# A path of somebody's own machine; /home/me is the reader's.
_LOCAL_PATH = re.compile(r"(?<![\w.~-])/(?:root|Users|work|private|home/(?!me/))\S*")


def _blocks(text: str, *languages: str) -> list[str]:
    return [content for language, content in _FENCED.findall(text) if language in languages]


def _command_lines(text: str) -> Iterator[str]:
    """What is to be typed, in blocks and in the middle of a sentence."""
    for block in _blocks(text, "console"):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))
    for block in _blocks(text, "sh"):
        yield from block.splitlines()
    yield from (re.sub(r"\s+", " ", code) for code in _INLINE.findall(_FENCED.sub("", text)))


def _commands(text: str) -> list[str]:
    """Those of ours, as they are without variables, comments and the shell's own signs."""
    found = (_COMMAND.fullmatch(re.sub(r"(\s#.*|\s&)$", "", line.strip())) for line in _command_lines(text))
    return [match[1].strip() for match in found if match]


@functools.cache
def _all_commands() -> Any:
    """Made once: to inspect each signature anew for each line takes longer than all else here."""
    return get_command(command)


def _parse(line: str) -> Any:
    """Raises what the command itself would say. Nothing is run."""
    group = _all_commands()
    name, *words = shlex.split(line)[1:] or ["--help"]
    if name in ("--help", "--version"):
        return group
    assert name in group.commands, f"there is no command {name!r}"
    while words and hasattr(group.commands[name], "commands"):
        group = group.commands[name]
        name, *words = words if words[0] in group.commands or "set" not in group.commands else ["set", *words]
        assert name in group.commands, f"there is no command {name!r}"
    # A sentence may speak of a command by its name alone.
    return group.commands[name].make_context(name, words) if words else group


ALL_COMMANDS = sorted({(page, line) for page, text in PAGES.items() for line in _commands(text)})


@pytest.mark.parametrize(("page", "line"), ALL_COMMANDS)
def test_every_command_in_the_documentation_can_be_typed(page: str, line: str) -> None:
    assert _parse(line)


def test_a_command_that_cannot_be_typed_would_be_found() -> None:
    text = (
        "```console\n$ X=1 charthouse serve --prot 1   # no\nlistening\n```\nand `uvx charthouse\nsail` is `helm push`"
    )
    assert _commands(text) == ["charthouse serve --prot 1", "charthouse sail"]
    with pytest.raises(AssertionError, match="sail"):
        _parse("charthouse sail")
    with pytest.raises(Exception, match="--prot") as refused:
        _parse("charthouse serve --prot 1")
    assert not isinstance(refused.value, typer.Exit)
    assert {page for page, _ in ALL_COMMANDS} >= {"README.md", "docs/configuration.md", "CHANGELOG.md"}


def _default(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    shown = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return f"`{shown}`" if shown else "none"


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_documented_with_its_default_and_an_example(name: str) -> None:
    field = FIELDS[name]
    names = f"`--{name.replace('_', '-')}` | `{PREFIX}{name.upper()}` | `{name}`"
    assert f"| {names} | {_default(field.default)} | {field.metadata['description']} |" in CONFIGURATION
    examples = CONFIGURATION.partition("## Examples")[2]
    assert re.search(rf"^### .*\b{name}\b", examples, re.MULTILINE)


def test_no_setting_is_documented_that_there_is_not() -> None:
    documented = re.findall(rf"^\| `--[a-z-]+` \| `{PREFIX}\w+` \| `(\w+)` \|", CONFIGURATION, re.MULTILINE)
    assert documented == list(FIELDS)


def test_every_configuration_file_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    examples = [block for text in PAGES.values() for block in _blocks(text, "toml")]
    assert examples
    for example in examples:
        file = tmp_path / "charthouse.toml"
        file.write_text(example)
        assert load({}, file, environ={}) != load({}, environ={})


def test_every_manifest_in_the_documentation_can_be_read() -> None:
    found = [
        document for text in PAGES.values() for block in _blocks(text, "yaml") for document in yaml.safe_load_all(block)
    ]
    kinds = Counter(document["kind"] for document in found if "kind" in document)
    assert kinds == {"Ingress": 1, "Secret": 1, "Application": 1, "OCIRepository": 1, "HelmRelease": 1, "Pod": 1}
    assert all("apiVersion" in document and document["metadata"]["name"] for document in found if "kind" in document)
    (ingress,) = (document for document in found if document.get("kind") == "Ingress")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"
    assert annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "off"
    assert len(found) == len(kinds) + 8  # and pipelines of GitHub and GitLab, and distribution's configuration


def test_every_link_between_pages_leads_somewhere() -> None:
    links = [(page, link.partition("#")[0]) for page, text in PAGES.items() for link in _LINK.findall(text)]
    relative = [(page, link) for page, link in links if link and "://" not in link]
    assert [(page, link) for page, link in relative if not (ROOT / page).parent.joinpath(link).exists()] == []
    assert len(relative) > 3


def test_every_file_that_the_map_names_is_there() -> None:
    code = ROOT / "registry/charthouse"
    named = [word for word in _INLINE.findall(PAGES["docs/architecture.md"]) if re.fullmatch(r"[\w./]+(\.py|/)", word)]
    folders = [ROOT, code, *(path for path in code.iterdir() if path.is_dir())]
    assert [word for word in named if not any((folder / word).exists() for folder in folders)] == []
    assert "core.py" in named


def test_no_page_speaks_of_a_machine_of_our_own() -> None:
    found = {page: _LOCAL_PATH.findall(text) for page, text in PAGES.items()}
    assert not any(found.values()), found
    assert _LOCAL_PATH.search("in /home/ada/x") is not None


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"^## \[?{re.escape(__version__)}\b", PAGES["CHANGELOG.md"], re.MULTILINE)
