"""The `[[issuers]]` tables of the configuration file: what one says, and each way in which it cannot be."""

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from charthouse.auth import issuers
from charthouse.auth.access import ACTIONS, Directory, Grant, Pattern, User
from charthouse.auth.issuers import Rule
from charthouse.server import is_closed
from charthouse.settings import Settings, SettingsError, load

URL = "https://auth.example.com"
CORP = 'name = "corp"\nissuer = "https://auth.example.com"\naudience = "charts.example.com"\njwks = "jwks.json"\n'
BOUND = 'repositories = ["team-a/*", "charts/*"]\nactions = ["pull", "push", "delete"]\n'


# The configuration


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "charthouse.toml"
    file.write_text(text)
    return load({"data": folder / "data"}, file, {})


def test_a_table_names_an_issuer_its_keys_and_what_its_tokens_may_give(tmp_path):
    (corp,) = loaded(tmp_path, f"[[issuers]]\n{CORP}{BOUND}").issuers
    assert (corp.name, corp.issuer, corp.audiences) == ("corp", URL, ("charts.example.com",))
    assert (corp.jwks, corp.longest) == (Path("jwks.json"), 86400)
    assert [str(grant) for grant in corp.bound.grants] == [
        "corp team-a/* pull,push,delete",
        "corp charts/* pull,push,delete",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("issuers = 7", "give tables, each under a line [[issuers]]"),
        ("issuers = [7]", "give tables, each under a line [[issuers]]"),
        ("[issuers.corp]", "give tables, each under a line [[issuers]]"),
        ("[[issuers]]", "name is None: give at most 64 small letters"),
        ('[[issuers]]\nname = "Corp"', "name is 'Corp': give"),
        ('[[issuers]]\nname = "token"', "name is 'token': give"),
        (f"[[issuers]]\n{CORP}{BOUND}jwk = 1", "corp: there is no key 'jwk': there are name, issuer, audience, jwks"),
        ('[[issuers]]\nname = "corp"', "corp: issuer is None: give what its tokens say in iss"),
        ('[[issuers]]\nname = "corp"\nissuer = "charthouse"', "corp: issuer is 'charthouse': that is this registry"),
        ('[[issuers]]\nname = "corp"\nissuer = "a"', "corp: audience is None: give the registry's name"),
        ('[[issuers]]\nname = "corp"\nissuer = "a"\naudience = []', "corp: audience is []: give"),
        ('[[issuers]]\nname = "corp"\nissuer = "a"\naudience = [""]', "corp: audience is ['']: give"),
        ('[[issuers]]\nname = "corp"\nissuer = "a"\naudience = "b"', "corp: jwks is None: give an https URL or a file"),
        (f"[[issuers]]\n{CORP}", "corp: repositories is None: give patterns such as team-a/*"),
        (f"[[issuers]]\n{CORP}repositories = '*'", "corp: actions is None: give some of pull, push, overwrite, delete"),
        (f"[[issuers]]\n{CORP}repositories = 'A'\nactions = 'pull'", "corp: 'A' is no pattern of repositories"),
        (f"[[issuers]]\n{CORP}repositories = '*'\nactions = 'read'", "corp: 'read' are no actions"),
        (f"[[issuers]]\n{CORP}{BOUND}longest = 0", "corp: longest is 0: give the seconds"),
        (f"[[issuers]]\n{CORP}{BOUND}longest = '1h'", "corp: longest is '1h': give the seconds"),
        (f"[[issuers]]\n{CORP}{BOUND}[[issuers]]\n{CORP}{BOUND}", "name = 'corp' is in two tables"),
        (
            f"[[issuers]]\n{CORP}{BOUND}[[issuers]]\n{CORP.replace('corp', 'other')}{BOUND}",
            "issuer = 'https://auth.example.com' is in two tables",
        ),
    ],
)
def test_a_table_that_cannot_be_is_one_line_that_names_the_key(tmp_path, text, fault):
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, text)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"[[issuers]] in {tmp_path / 'charthouse.toml'}: {fault}")


@pytest.mark.parametrize(
    ("jwks", "is_taken"),
    [
        ("https://auth.example.com/.well-known/jwks", True),
        ("https://auth.example.com:8443/keys?x=1", True),
        ("http://localhost:8080/keys", True),
        ("http://127.0.0.1/keys", True),
        ("http://[::1]:1/keys", True),
        ("http://auth.example.com/keys", False),
        ("http://localhost.example.com/keys", False),
        ("http://127.0.0.1.example.com/keys", False),
        ("http://0.0.0.0/keys", False),
        ("https://ann:secret@auth.example.com/keys", False),
        ("https://ann@auth.example.com/keys", False),
        ("https://", False),
        ("https://[/keys", False),
        ("https://a:x/keys", False),
        ("https://a.example/keys\n", False),
        ("https://a.example/keys#x", False),
        ("file:///etc/passwd", False),
        ("ftp://a.example/keys", False),
    ],
)
def test_keys_come_by_https_or_from_this_machine(tmp_path, jwks, is_taken):
    table = {"name": "a", "issuer": "a", "audience": "b", "jwks": jwks, "repositories": "*", "actions": "pull"}
    if is_taken:
        assert issuers.parse([table])[0].jwks == jwks
    else:
        with pytest.raises(ValueError, match="give an https URL without user and password"):
            issuers.parse([table])


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_server_does_not_start_without_the_keys_of_a_file(tmp_path, content):
    if content:
        (tmp_path / "jwks.json").write_text(content)
    settings = loaded(tmp_path, f"[[issuers]]\n{CORP.replace('jwks.json', str(tmp_path / 'jwks.json'))}{BOUND}")
    with pytest.raises(SettingsError, match=r"\[\[issuers\]\] corp: jwks .*jwks\.json cannot be used: "):
        is_closed(settings)


# Rules

GITHUB = "https://token.actions.githubusercontent.com"
RULE = 'repositories = "team-a/*"\nactions = "pull,push"\n'
KINDS = '[[issuers]]\nname = "ci"\nissuer = "{issuer}"\naudience = "b"\njwks = "c"\n'


def ruled(folder: Path, *rules: str, issuer: str = "https://ci.example.com") -> issuers.Issuer:
    tables = "".join(f"[[issuers.rules]]\n{rule}" for rule in rules)
    return loaded(folder, KINDS.format(issuer=issuer) + tables).issuers[0]


def test_rules_name_claims_and_what_they_give(tmp_path):
    first, second = ruled(
        tmp_path,
        f'claims = {{ repository = "acme/app", ref = ["refs/heads/main", "refs/tags/*"] }}\n{RULE}',
        'claims = { sub = "a" }\nuser = "ci"',
    ).rules
    assert first.claims == {"repository": ("acme/app",), "ref": ("refs/heads/main", "refs/tags/*")}
    assert ([str(grant) for grant in first.grants], first.user) == (["ci team-a/* pull,push"], "")
    assert (second.grants, second.user) == ((), "ci")


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (RULE, "claims is None: say whom it is for"),
        (f"claims = {{}}\n{RULE}", "claims is {}: say whom it is for"),
        (f"claims = 'main'\n{RULE}", "claims is 'main': say whom it is for"),
        (f"claims = {{ sub = 7 }}\n{RULE}", "sub is 7: give a text or a pattern"),
        (f"claims = {{ sub = '' }}\n{RULE}", "sub is '': give a text or a pattern"),
        (f"claims = {{ sub = [] }}\n{RULE}", "sub is []: give a text or a pattern"),
        (f"claims = {{ sub = '*' }}\n{RULE}", "claims is {'sub': '*'}: that is everybody whom https://ci.example.com"),
        (f"claims = {{ sub = ['a', '**'] }}\n{RULE}", "claims is {'sub': ['a', '**']}: that is everybody"),
        ("claims = { sub = 'a' }", "repositories is None: give patterns"),
        ("claims = { sub = 'a' }\nrepositories = '*'", "actions is None: give some of pull"),
        ("claims = { sub = 'a' }\nuser = 'ci'\nactions = 'pull'", "repositories is None: give patterns"),
        ("claims = { sub = 'a' }\nuser = ''", "user is '': give the name of a user"),
        ("claims = { sub = 'a' }\nuser = 7", "user is 7: give the name of a user"),
        (f"claims = {{ sub = 'a' }}\n{RULE}repository = 'a'", "there is no key 'repository': there are claims"),
    ],
)
def test_a_rule_that_cannot_be_or_is_for_everybody_is_refused_by_its_number(tmp_path, rule, fault):
    good = f"claims = {{ sub = 'b' }}\n{RULE}"
    with pytest.raises(SettingsError) as refused:
        ruled(tmp_path, good, f"{rule}\n")
    assert f"charthouse.toml: ci: rule 2: {fault}" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("issuer", "claims", "is_taken"),
    [
        (GITHUB, "ref = 'refs/heads/main'", False),
        (GITHUB, "repository = '*/app'", False),
        (GITHUB, "repository = 'acme*'", False),
        (GITHUB, "repository = ['acme/app', '*/app']", False),
        (GITHUB, "repository_owner = 'acme*'", False),
        (
            GITHUB,
            "job_workflow_ref = 'acme/ci/.github/workflows/release.yml@refs/heads/main'",
            False,
        ),  # anybody calls it
        (GITHUB, "sub = 'repo:*:environment:production'", False),
        (f"{GITHUB}/", "ref = 'refs/heads/main'", False),
        (GITHUB, "repository = 'acme/*'", True),
        (GITHUB, "repository_owner_id = '65'", True),
        (GITHUB, "sub = 'repo:acme/app:*'", True),
        (GITHUB, "repository_owner = 'acme', ref = '*'", True),
        ("https://gitlab.com", "ref_protected = 'true'", False),
        ("https://gitlab.com", "project_path = 'acme/*', ref_protected = 'true'", True),
        ("https://gitlab.example.com", "ref_protected = 'true'", True),
    ],
)
def test_at_an_issuer_of_everybody_a_rule_says_whose_workload_it_is(tmp_path, issuer, claims, is_taken):
    rule = f"claims = {{ {claims} }}\n{RULE}"
    if is_taken:
        assert ruled(tmp_path, rule, issuer=issuer).rules
    else:
        with pytest.raises(SettingsError, match=r"rule 1: claims is .* has to say whose it is"):
            ruled(tmp_path, rule, issuer=issuer)


def test_an_issuer_has_rules_or_gives_registry_tokens_and_may_have_a_table_for_each(tmp_path):
    rule = f"[[issuers.rules]]\nclaims = {{ sub = 'a' }}\n{RULE}"
    with pytest.raises(SettingsError, match=r"ci: there is no key 'repositories': there are name, .*rules"):
        loaded(tmp_path, KINDS.format(issuer="a") + BOUND + rule)
    with pytest.raises(SettingsError, match=r"ci: rules: give tables, each under a line \[\[issuers.rules\]\]"):
        loaded(tmp_path, KINDS.format(issuer="a") + "rules = []")
    both = KINDS.format(issuer=URL) + rule + f"[[issuers]]\n{CORP}{BOUND}"
    assert [bool(each.rules) for each in loaded(tmp_path, both).issuers] == [True, False]
    twice = KINDS.format(issuer=URL) + rule + KINDS.format(issuer=URL).replace('"ci"', '"c2"') + rule
    with pytest.raises(SettingsError, match=f"issuer = '{URL}' is in two tables"):
        loaded(tmp_path, twice)


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("acme/app", ["acme/app"], ["acme/app2", "acme/ap", "Acme/app", ""]),
        ("acme/*", ["acme/", "acme/app", "acme/a/b"], ["acme", "acme-2/app", "x/acme/app"]),
        ("*/app", ["/app", "acme/app"], ["acme/app2"]),
        ("refs/*/v*", ["refs/tags/v1", "refs//v", "refs/v/v"], ["refs/v", "refs/tags/1"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("a*b*b", ["abb", "axbxb"], ["ab", "ba"]),
        ("a.c[d]?", ["a.c[d]?"], ["abcd", "a.cdx"]),
        ("*", ["", "a\nb"], []),
    ],
)
def test_a_star_stands_for_any_characters_and_nothing_else_is_special(pattern, fitting, others):
    assert [text for text in fitting + others if issuers.matches(pattern, text)] == fitting


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_matches_as_it_would_as_a_regular_expression(pattern, text):
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert issuers.matches(pattern, text) == bool(re.fullmatch(expression, text, re.DOTALL))


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ({"ref": "main"}, True),
        ({"ref": "main", "more": 1}, True),
        ({"ref": ["other", "main"]}, True),
        ({}, False),
        ({"ref": None}, False),
        ({"ref": {"main": "main"}}, False),
        ({"ref": [["main"]]}, False),
        ({"ref": [{"main": 1}, None, 1.5]}, False),
        ({"ref": True}, False),
    ],
)
def test_what_a_claim_says_has_to_fit_whatever_its_form_is(said, fits):
    rule = Rule((), {"ref": ("main",)})
    assert rule.lets_in(said, Directory()) is fits


def test_numbers_and_booleans_are_compared_as_they_are_written():
    rule = Rule((), {"project_id": ("22",), "ref_protected": ("true",)})
    for project, is_protected in ((22, True), ("22", "true")):
        assert rule.lets_in({"project_id": project, "ref_protected": is_protected}, Directory())
    assert not rule.lets_in({"project_id": 22, "ref_protected": 1}, Directory())


def test_a_rule_without_claims_lets_nobody_in():
    assert not Rule(()).lets_in({"sub": "a"}, Directory())


def test_another_rule_has_another_mark(tmp_path):
    first = f'claims = {{ sub = "a", ref = "b" }}\n{RULE}'
    others = [first.replace('"b"', '"c"'), first.replace("pull,", "delete,"), first + 'user = "ci"', first]
    marks = [ruled(tmp_path, first).rules[0].mark, *(ruled(tmp_path, each).rules[0].mark for each in others)]
    assert len(set(marks)) == 4
    assert (
        marks[0]
        == marks[-1]
        == ruled(tmp_path, first.replace('sub = "a", ref = "b"', 'ref = "b", sub = "a"')).rules[0].mark
    )
    assert ruled(tmp_path, first, issuer="https://other.example.com").rules[0].mark != marks[0]


some_actions = st.frozensets(st.sampled_from(ACTIONS), min_size=1)
some_grants = st.lists(st.tuples(st.sampled_from(["a/*", "a/b", "b/*", "*"]), some_actions), max_size=2)


@given(
    st.lists(st.tuples(some_grants, st.sampled_from(["", "ann", "off", "none"])), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(["ann", "off", "anonymous", "@team"]), some_grants), max_size=3),
    st.booleans(),
    st.sampled_from(ACTIONS),
    st.sampled_from(["a/b", "a/c", "b/c"]),
)
def test_nobody_may_what_no_rule_and_no_grant_gives(rules, granted, is_of_workload, action, repository):
    """Counted from the words of docs/tokens.md: rules, what their users may, and what everybody may, unless it is a
    registry token's."""

    def made(subject: str, pairs: list) -> list[Grant]:
        return [Grant(subject, Pattern(pattern), actions) for pattern, actions in pairs]

    directory = Directory(
        users={name: User(name, "", False, name == "off") for name in ("ann", "off")},
        groups={"team": frozenset({"ann"})},
        grants=[grant for subject, pairs in granted for grant in made(subject, pairs)],
    )
    found = issuers.rights(
        [Rule(made("ci", pairs), {"sub": ("a",)} if is_of_workload else {}, user) for pairs, user in rules], directory
    )
    subjects = {"anonymous"} if is_of_workload else set()
    subjects |= {"ann", "@team"} if is_of_workload and any(user == "ann" for _, user in rules) else set()
    theirs = [pair for pairs, _ in rules for pair in pairs]
    theirs += [pair for subject, pairs in granted for pair in pairs if subject in subjects]
    covers = {"*": True, "a/*": repository.startswith("a/"), "b/*": repository == "b/c", "a/b": repository == "a/b"}
    due = any(covers[pattern] and action in actions for pattern, actions in theirs)
    assert found.allows(action, repository) is due
    readable = found.readable
    assert (readable is None or any(Pattern(each).covers(repository) for each in readable)) == found.allows(
        "pull", repository
    )
