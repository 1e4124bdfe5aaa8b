"""Scopes: the specification's grammar, the union, and nothing for what is malformed or somebody else's."""

import json

import pytest
from hypothesis import given, strategies as st

from charthouse.auth import scope
from charthouse.auth.scope import ACTIONS, CATALOG, SCOPE_LIMIT, SIZE_LIMIT, Access
from charthouse.errors import NameInvalid, TokenRequestInvalid
from charthouse.names import RepositoryName


def allowed(*values: str) -> dict[str, str]:
    """What the scopes ask for, as a client would write it."""
    access = scope.parse(values)
    return {name: ",".join(action for action in ACTIONS if access.allows(name, action)) for name in access.repositories}


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        (["repository:team-a/app:pull"], {"team-a/app": "pull"}),
        (["repository:app:push,pull"], {"app": "pull,push"}),
        (["repository:app:*"], {"app": "pull,push,delete"}),
        (["repository:app:pull,pull,delete"], {"app": "pull,delete"}),
        (["repository(plugin):app:pull"], {"app": "pull"}),  # the class is deprecated and ignored
        # Clients ask for the same repository twice, as one parameter or as two (helm/helm#12121).
        (["repository:app:pull", "repository:app:pull,push"], {"app": "pull,push"}),
        (["repository:app:pull repository:app:push repository:b:pull"], {"app": "pull,push", "b": "pull"}),
        ([" repository:app:pull  "], {"app": "pull"}),
        # Of another registry, or of another kind: beside it the rest counts (logging-operator#1522).
        (["repository:h:5000/app:pull repository:app:pull"], {"app": "pull"}),
        (["repository:user/Image:pull", "repository:app:pull"], {"app": "pull"}),
        (["registry:other:*", "namespace:app:pull"], {}),
        (["repository:app:pull,sign"], {"app": "pull"}),
        (["repository:app:sign"], {}),
        # Malformed: the whole scope asks for nothing.
        (["repository:app:pull,PUSH"], {}),
        (["repository:app:pull,*x"], {}),
        (["repository:app:"], {}),
        (["repository:app"], {}),
        (["repository::pull"], {}),
        ([":app:pull"], {}),
        (["Repository:app:pull"], {}),
        (["repository(:app:pull"], {}),
        (["repository()x:app:pull"], {}),
        (["repository:app\n:pull", "repository:app:pull\n", "repository:app\0:pull", "repository:ä:pull"], {}),
        (["repository:../app:pull", "repository:app/:pull", "repository:%61pp:pull", "repository:team-*:pull"], {}),
        (["", ":", "::", ":::", "*:*:*"], {}),
        ([], {}),
    ],
)
def test_scopes_are_read_as_the_grammar_says(values, asked):
    assert allowed(*values) == asked


def test_the_catalog_is_a_resource_of_its_own():
    assert scope.parse([CATALOG]) == Access({}, catalog=True)
    assert not scope.parse(["registry:catalog:pull", "repository:catalog:*"]).catalog
    assert str(scope.parse(["registry:catalog:* repository:a:push,pull"])) == f"repository:a:pull,push {CATALOG}"


@pytest.mark.parametrize(
    "values",
    [
        ["repository:a:pull"] * (SCOPE_LIMIT + 1),
        [" ".join(["repository:a:pull"] * (SCOPE_LIMIT + 1))],
        ["x" * (SIZE_LIMIT + 1)],
        [" " * SIZE_LIMIT, " "],
    ],
)
def test_too_many_scopes_are_refused(values):
    with pytest.raises(TokenRequestInvalid, match="at most 64 scopes"):
        scope.parse(values)


def test_as_many_as_there_may_be_are_read():
    assert len(allowed(*[f"repository:a{number}:pull" for number in range(SCOPE_LIMIT)])) == SCOPE_LIMIT


kinds = st.sampled_from(["repository", "registry", "repository(plugin)", "Repository", "", "r()"])
names = st.sampled_from(["a", "a/b", "catalog", "h:5000/a", "A", "a/", "", ":", "a b"])
actions = st.lists(st.sampled_from(["pull", "push", "delete", "*", "sign", "PULL", ""]), max_size=4).map(",".join)
scopes = st.tuples(kinds, names, actions).map(":".join) | st.text("repository:pull,*() ", max_size=30)


def oracle(values: list[str]) -> tuple[set[tuple[str, str]], bool]:
    """The grammar once more, with nothing but partitions: (repository, action) for each that is asked for."""
    pairs, catalog = set(), False
    for each in " ".join(values).split(" "):
        kind, first, rest = each.partition(":")
        name, second, text = rest.rpartition(":")
        if kind.endswith(")"):
            kind, opened, inner = kind[:-1].partition("(")
            if not opened or not inner.isalnum() or inner.lower() != inner:
                continue
        wanted = text.split(",")
        if (
            not first
            or not second
            or any(word != "*" and not set(word) <= set("abcdefghijklmnopqrstuvwxyz") for word in wanted)
        ):
            continue
        catalog |= (kind, name) == ("registry", "catalog") and "*" in wanted
        if kind == "repository" and is_a_repository(name):
            pairs |= {(name, action) for action in ACTIONS if action in wanted or "*" in wanted}
    return pairs, catalog


def is_a_repository(name: str) -> bool:
    try:
        return RepositoryName.parse(name) == name
    except NameInvalid:
        return False


@given(st.lists(scopes, max_size=8))
def test_any_scopes_ask_for_what_the_oracle_says(values):
    access = scope.parse(values)
    found = {(name, action) for name, these in access.repositories.items() for action in these}
    assert (found, access.catalog) == oracle(values)


@given(st.lists(scopes, max_size=8))
def test_what_was_asked_for_survives_being_written_and_read_again(values):
    access = scope.parse(values)
    assert scope.parse([str(access)]) == access
    assert scope.from_claim(json.loads(json.dumps(access.claim))) == access


def test_a_token_spells_every_action_out():
    """distribution looks for pull and for push: a token that says `*` is refused there for neither."""
    access = scope.parse(["repository:b:*", "repository:a:push,pull", CATALOG])
    assert access.claim == [
        {"type": "repository", "name": "a", "actions": ["pull", "push"]},
        {"type": "repository", "name": "b", "actions": ["pull", "push", "delete"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["repository", "a", "pull", "type", "name", "actions"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "name", "actions", "class"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_an_access_claim_of_any_form_allows_at_most_what_it_says(claim):
    access = scope.from_claim(claim)
    for name, these in access.repositories.items():
        assert any(
            entry.get("type") == "repository" and entry.get("name") == name and these & {*entry["actions"]}
            for entry in claim
            if isinstance(entry, dict) and isinstance(entry.get("actions"), list)
            if all(isinstance(action, str) for action in entry["actions"])
        )
