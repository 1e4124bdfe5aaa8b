"""Other registries, as sets of rules: what a client meets there and not here.

Each names the source that it imitates, and has a test in which a real client behaves differently (tests/clients).
"""

from dataclasses import dataclass

from charthouse.testing.rules import Rule


@dataclass(frozen=True, slots=True)
class Personality:
    source: str
    rules: tuple[Rule, ...]


NO_REFERRERS = (
    Rule(
        path="/v2/*/referrers/*",
        status=404,
        headers={"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"},
        body="404 page not found\n",
    ),
    Rule(method="PUT", path="/v2/*/manifests/*", without=["OCI-Subject"]),
)

PERSONALITIES = {
    # No referrers API: clients keep an index under the tag sha256-<hex> in its place.
    "distribution": Personality(
        "https://github.com/distribution/distribution/blob/v3.1.2/registry/api/v2/routes.go", NO_REFERRERS
    ),
    # registry:2 in all its versions: nor are there pages of tags, which came with 3.0.
    "distribution-2": Personality(
        "https://github.com/distribution/distribution/blob/v2.8.3/registry/handlers/tags.go",
        (*NO_REFERRERS, Rule(path="*/tags/list", unpaged=True)),
    ),
    # Tokens are given for GET alone: clients that begin with POST come again.
    "harbor": Personality(
        "https://github.com/containerd/containerd/pull/8630", (Rule(method="POST", path="/token", status=405),)
    ),
    # Where anything may be pulled without a user, a ping is not challenged: some clients then never say who they are.
    "zot": Personality(
        "https://github.com/project-zot/zot/pull/3867", (Rule(method="GET", path="/v2/", status=200, body={}),)
    ),
    # As it was until 2022, when AWS made tags listable (aws/containers-roadmap#1262): for whoever has a token, and may
    # pull with it, the list is not there.
    "ecr-public": Personality(
        "https://github.com/dependabot/dependabot-core/issues/4212",
        (Rule(method="GET", path="*/tags/list", status=404),),
    ),
    # A repository is made before something is pushed to it: nothing is pushed to one that nobody made.
    "ecr": Personality(
        "https://github.com/actions/starter-workflows/issues/2647",
        (
            Rule(
                method="POST",
                path="/v2/*/blobs/uploads/",
                status=404,
                body={
                    "errors": [
                        {
                            "code": "NAME_UNKNOWN",
                            "message": "The repository with name 'app' does not exist in the registry with id"
                            " '123456789012'",
                        }
                    ]
                },
            ),
        ),
    ),
    # So many pulls in six hours: then manifests are refused. Here the limit is reached.
    "docker-hub": Personality(
        "https://docs.docker.com/docker-hub/usage/pulls/",
        (
            Rule(
                method="GET",
                path="/v2/*/manifests/*",
                status=429,
                headers={"Retry-After": "1"},
                body={
                    "errors": [
                        {
                            "code": "TOOMANYREQUESTS",
                            "message": "You have reached your unauthenticated pull rate limit."
                            " https://www.docker.com/increase-rate-limit",
                        }
                    ]
                },
            ),
        ),
    ),
}
