"""The token service's two addresses: `/token`, and the keys that verify what it gives."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from charthouse.addressee import addressee
from charthouse.auth import token_request
from charthouse.auth.sign_in import BASIC
from charthouse.auth.token_request import ACCESS_TOKEN, FORM_LIMIT, PATH, TokenRequest
from charthouse.errors import RegistryError, Unauthorized
from charthouse.oci.errors import render

router = APIRouter()


@router.get(PATH)
async def get_token(request: Request) -> Response:
    header = request.headers.get("authorization")
    return await _answer(request, lambda: token_request.parse_get(request.scope["query_string"], header))


@router.post(PATH)
async def post_token(request: Request) -> Response:
    form = await _read(request)
    return await _answer(request, lambda: token_request.parse_post(form))


@router.get("/.well-known/jwks.json")
async def published_keys(request: Request) -> Response:
    """For whoever verifies our tokens: distribution reads a copy of it."""
    published = addressee(request.scope).registry.access_tokens.keys.published
    return JSONResponse(published, headers={"Cache-Control": "max-age=600"})


async def _answer(request: Request, parse: Callable[[], TokenRequest]) -> Response:
    """Never 403 or 5xx for want of a right: Helm 3.8 to 3.17 would not go on.

    `issued_at` is left out: clients then count from when they have the token, whatever their clock says.
    """
    try:
        given = await addressee(request.scope).guard.give_token(parse(), request.scope)
    except Unauthorized as error:
        return render(Unauthorized(error.message, headers=BASIC))
    except RegistryError as error:
        return render(error)
    fields: dict[str, object] = {
        "token": given.token,
        "access_token": given.token,
        "expires_in": given.lifetime,
        "scope": str(given.access),
    }
    if given.refresh_token:
        fields["refresh_token"] = given.refresh_token
    if given.is_exchanged:
        fields |= {"issued_token_type": ACCESS_TOKEN, "token_type": "Bearer"}
    return JSONResponse(fields, headers={"Cache-Control": "no-store"})


async def _read(request: Request) -> bytes:
    """At most a little more than may be: the rest makes no difference."""
    form = bytearray()
    async for piece in request.stream():
        form += piece
        if len(form) > FORM_LIMIT:
            break
    return bytes(form)
