"""docs/rules.md is complete: every finding of ours by its name, every finding of Helm's lint by its message."""

import re
from pathlib import Path

import pytest

from charthouse.helm import archive, isolation, lint, metadata, rules

PAGE = (Path(__file__).parents[2] / "docs/rules.md").read_text(encoding="utf-8")
MESSAGE = re.compile(r'(?:errors\.New|fmt\.Errorf)\(\s*(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`)?')
RULE = re.compile(r'rule(?:: str)? = "(\w+)"|Archive\w+\(\s*"(\w+)"|_(?:COSTLY|SKIPPED) = "(\w+)"')
NAMES_OF_OTHERS = {"archive_and_chart_yaml_can_be_read"}  # what it yields has the names that archive and metadata give


def ours() -> set[str]:
    """The names of rules, and of findings that name themselves."""
    modules = (archive, metadata, isolation)
    texts = (Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    themselves = {name for text in texts for found in RULE.findall(text) for name in found if name}
    return {each.__name__ for each in rules.RULES + rules.TAG_RULES + lint.LINTS} | themselves | {"is_for_charts"}


def test_every_rule_is_on_the_page() -> None:
    assert [name for name in sorted(ours() - NAMES_OF_OTHERS) if f"`{name}`" not in PAGE] == []


def test_every_rule_on_the_page_is_one() -> None:
    tables = PAGE.replace("`archive_and_chart_yaml_can_be_read`", "")
    assert set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", tables)) <= ours()


def test_every_finding_of_helms_lint_is_on_the_page(helm_source: Path) -> None:
    files = [
        path for path in (helm_source / "pkg/chart/v2/lint/rules").glob("*.go") if not path.name.endswith("_test.go")
    ]
    found = [(path.name, match) for path in files for match in MESSAGE.finditer(path.read_text(encoding="utf-8"))]
    assert len(found) >= 38
    for name, match in found:
        message = (match[1] or match[2]).replace('\\"', '"')
        assert f"| {name} | `{message}`" in PAGE, f"docs/rules.md lacks {name}'s {message!r}"


@pytest.mark.parametrize("row", [row for row in PAGE.splitlines() if re.match(r"\| \w+\.go ", row)])
def test_every_finding_of_helm_has_ours_beside_it_or_the_reason_why_not(row: str) -> None:
    here = row.rstrip("| ").rpartition("| ")[2]
    assert re.search(r"`\w+`", here) or here.startswith("not here: ")
