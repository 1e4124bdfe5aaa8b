"""The OCI distribution API under /v2/: a file for each chapter of the specification, with its end-points' marks."""

from charthouse.oci import discovery, management, pull, push
from charthouse.oci.routing import Api


def create_api() -> Api:
    # Push first: `blobs/uploads` is no digest.
    return Api(push.chapter, pull.chapter, discovery.chapter, management.chapter)
