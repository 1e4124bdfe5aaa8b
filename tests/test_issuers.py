"""The `[[issuers]]` tables of the configuration file: what one says, and each way in which it cannot be."""

from pathlib import Path

import pytest

from charthouse.auth import issuers
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
