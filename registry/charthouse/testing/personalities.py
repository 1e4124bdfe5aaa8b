"""Other registries, as sets of rules: what a client meets there and not here.

Each names the source that it imitates, and has a test in which a real client behaves differently (tests/clients).
"""

from dataclasses import dataclass

from charthouse.testing.rules import Rule


@dataclass(frozen=True, slots=True)
class Personality:
    source: str
    rules: tuple[Rule, ...]


PERSONALITIES = {
    # No referrers API: clients keep an index under the tag sha256-<hex> in its place.
    "distribution": Personality(
        "https://github.com/distribution/distribution/blob/v3.1.2/registry/api/v2/routes.go",
        (
            Rule(
                path="/v2/*/referrers/*",
                status=404,
                headers={"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"},
                body="404 page not found\n",
            ),
            Rule(method="PUT", path="/v2/*/manifests/*", without=["OCI-Subject"]),
        ),
    ),
    # A repository is made before something is pushed to it: nothing is pushed to one that nobody made.
    "ecr": Personality(
        "https://docs.aws.amazon.com/AmazonECR/latest/userguide/common-errors-docker.html",
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
