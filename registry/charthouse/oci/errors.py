"""One renderer for every error of the API."""

import json
import logging

from starlette.responses import Response

from charthouse.errors import BlobDamaged, ManifestDamaged, RegistryError

log = logging.getLogger(__name__)

SERVER_FAULT = 500
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}  # what is JSON is no page for a browser, whatever a name in it says


def render(error: RegistryError) -> Response:
    if error.status >= SERVER_FAULT and not isinstance(error, BlobDamaged | ManifestDamaged):  # said when it was found
        log.critical("%s", error.message.encode("utf-8", "replace").decode())  # a name may hold lone surrogates
    entry = {"code": error.code, "message": error.message}
    if error.detail:
        entry["detail"] = error.detail
    # ASCII, because a name in a message may hold what UTF-8 cannot write.
    return Response(
        json.dumps({"errors": [entry]}), error.status, NO_SNIFFING | error.headers, media_type="application/json"
    )
