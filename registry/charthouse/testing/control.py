"""What is asked for under `/_test/`, and what is answered: OpenAPI's description of it is made from this.

Handlers are plain functions: the framework runs them in threads, from which a registry's methods may be called.
"""

import hmac
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from charthouse import __version__
from charthouse.errors import RegistryError
from charthouse.settings import SettingsError
from charthouse.testing import records, samples
from charthouse.testing.pushing import Pushable
from charthouse.testing.registries import PREFIX, Registries, StartedRegistry, describe
from charthouse.testing.registry import Registry
from charthouse.testing.rules import Rule

# --- what is asked for, and what is answered --------------------------------------------------------------------------


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewRegistry(Model):
    """What is not given is as in every registry for tests: policy `oci`, versions mutable, plain HTTP on loopback."""

    auth: Literal["none", "basic", "bearer"] = Field(
        default="none",
        description="Whether clients have to sign in; with bearer there are tokens, and Basic counts too.",
    )
    anonymous_pull: bool = Field(default=False, description="With auth: pulls need no user.")
    tls: bool = False
    mtls: bool = Field(default=False, description="TLS, for clients that show a certificate of its own authority.")
    policy: Literal["oci", "charts"] = "oci"
    versions: Literal["mutable", "immutable", "releases-immutable"] = "mutable"
    rules: Literal["on", "off"] = Field(default="on", description="off stores broken charts too.")
    host: list[str] = Field(default=[], description="Addresses to listen on: those of the first, if not given.")
    san: list[str] = Field(default=[], description="Further names, for its certificate too.")
    personality: str = Field(default="", description="Another registry that it behaves as.")
    tester_password: str = Field(default="", description="With auth; without, one is made.")
    seed: str | None = Field(default=None, description="A folder of charts, on the registry's machine.")


class ChartWords(BaseModel):
    """Further fields are fields of its Chart.yaml. Texts are written as they are, objects as YAML."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: str
    values: str | dict[str, Any] | None = None
    templates: dict[str, str | dict[str, Any]] | None = Field(default=None, description="By path below templates/.")
    files: dict[str, str | dict[str, Any]] | None = Field(default=None, description="By path in the chart's folder.")
    dependencies: list[dict[str, Any]] = []


class Seed(Model):
    """Charts to push: made of words, given as archives, or all that are in a folder of the registry's machine."""

    namespace: str = Field(default="", examples=["team-a"])
    charts: list[ChartWords] = Field(default=[], examples=[[{"name": "app", "version": "1.2.3"}]])
    archives: list[Base64Bytes] = Field(default=[], description="In base64.")
    folder: str | None = None


class Faults(Model):
    """Rules, or a set of them by its name, added to those that there are."""

    rules: list[Rule] = Field(default=[], examples=[[{"path": "*/manifests/*", "times": 2, "status": 502}]])
    personality: str | None = Field(default=None, examples=["ecr"])


class Clock(Model):
    advance: float = Field(
        ge=0, le=100 * 365 * 86400, description="Seconds that pass at once, at most a hundred years.", examples=[3600]
    )


class Refusal(Model):
    detail: str = Field(description="Why, in one line.")


# --- the routes -------------------------------------------------------------------------------------------------------


def _this(request: Request) -> Registry:
    found: Registry = request.scope["state"]["registry"]
    return found


def _all(request: Request) -> Registries:
    found: Registries = request.app.state.registries
    return found


def _authorize(request: Request, authorization: Annotated[str, Header()] = "") -> None:
    expected = f"Bearer {request.app.state.token}"
    if not hmac.compare_digest(authorization.encode(), expected.encode()):
        raise HTTPException(401, "the control of a registry for tests is opened by CHART_REGISTRY_CONTROL_TOKEN alone")


REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "Without the token, or with another one."},
    400: {"model": Refusal, "description": "The body cannot be read, or the registry refuses what would be pushed."},
    422: {"model": Refusal, "description": "What is asked for cannot be."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Refusal, "description": "There is none of that number."}}
This = Annotated[Registry, Depends(_this)]
All = Annotated[Registries, Depends(_all)]
router = APIRouter(prefix=PREFIX.rstrip("/"), dependencies=[Depends(_authorize)], responses=REFUSALS)


def _sample(name: str) -> dict[str, Any]:
    return {"x-codeSamples": samples.samples(name)}


@router.get("/registry", openapi_extra=_sample("registry"))
def get_registry(request: Request, this: This) -> StartedRegistry:
    """Where it is, who may do everything, and the certificates: for whoever knows it by its name and token alone."""
    return describe(this, request.headers["host"])


@router.post("/reset", status_code=204, openapi_extra=_sample("reset"))
def reset(registry: This) -> None:
    """Empty again, at the same address: without records, faults and moved time."""
    registry.reset()


@router.post("/seed", status_code=201, openapi_extra=_sample("seed"))
def seed(registry: This, wanted: Seed) -> list[str]:
    """Pushes charts. Returns their names here: team-a/app:1.2.3."""
    names = []
    charts: list[Pushable] = [words.model_dump(exclude_unset=True) for words in wanted.charts]
    for chart in charts + list(wanted.archives):
        pushed = registry.push(chart, wanted.namespace)
        names.append(f"{pushed.repository}:{pushed.tag}")
    return names + (registry.seed(wanted.folder, wanted.namespace) if wanted.folder else [])


@router.get("/requests", openapi_extra=_sample("requests"))
def get_requests(registry: This) -> list[dict[str, Any]]:
    """What clients asked, in order, without their credentials."""
    return [records.public(request) for request in registry.requests]


@router.get("/faults", openapi_extra=_sample("list faults"))
def get_faults(registry: This) -> list[dict[str, Any]]:
    return [rule.model_dump(exclude_defaults=True) for rule in registry.faults]


@router.post("/faults", status_code=204, openapi_extra=_sample("faults"))
def add_faults(registry: This, faults: Faults) -> None:
    """From now on, until they are deleted or the registry is reset."""
    if faults.personality is not None:
        registry.imitate(faults.personality)
    registry.add_faults(faults.rules)


@router.delete("/faults", status_code=204, openapi_extra=_sample("clear faults"))
def clear_faults(registry: This) -> None:
    registry.clear_faults()


@router.post("/clock", openapi_extra=_sample("clock"))
def move_clock(registry: This, clock: Clock) -> dict[str, float]:
    """Uploads and tokens expire. Returns the registry's time, in Unix seconds."""
    registry.clock.advance(clock.advance)
    return {"now": registry.clock()}


@router.post("/collect", openapi_extra=_sample("collect"))
def collect(registry: This) -> dict[str, int]:
    """Garbage collection, now by the registry's clock. Returns how much it removed."""
    report = registry.collect()
    return {"blobs": report.blobs, "manifests": report.manifests, "uploads": report.uploads}


@router.post("/registries", status_code=201, openapi_extra=_sample("registries"))
def start_registry(request: Request, this: This, registries: All, wanted: NewRegistry) -> StartedRegistry:
    """A further registry, empty, on a port of its own, with `/_test/` under the same token."""
    words = wanted.model_dump(exclude={"host"})
    registry = registries.start(**words, host=wanted.host or this.addresses)
    name = request.headers["host"].rpartition(":")[0]  # by which whoever asks has reached this machine
    return describe(registry, f"{name}:{registry.port}" if name else "")


@router.delete("/registries/{number}", status_code=204, responses=NOT_FOUND, openapi_extra=_sample("end"))
def end_registry(registries: All, number: str) -> Response:
    if not registries.end(number):
        raise HTTPException(404, f"there is no registry {number} that was asked for here")
    return Response(status_code=204)


def application(registries: Registries, token: str) -> FastAPI:
    app = FastAPI(
        title="Charthouse's registry for tests",
        version=__version__,
        openapi_url=f"{PREFIX}openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.registries, app.state.token = registries, token
    app.include_router(router)

    @app.exception_handler(RegistryError)
    async def refuse(_: Request, error: RegistryError) -> Response:
        return JSONResponse({"detail": error.message}, error.status)

    @app.exception_handler(RequestValidationError)
    async def is_not_as_described(_: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"detail": "; ".join(map(_fault, error.errors()))}, 422)

    @app.exception_handler(OSError)
    async def cannot_be_read(_: Request, error: OSError) -> Response:
        """A folder of charts: what else there is in files is the registry's own."""
        return JSONResponse({"detail": f"{error.filename}: {error.strerror}"}, 422)

    @app.exception_handler(SettingsError)
    async def cannot_be(_: Request, error: SettingsError) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    return app


def _fault(found: dict[str, Any]) -> str:
    where = ".".join(map(str, found["loc"][1:])) or "the body"
    if found["type"] == "extra_forbidden":
        return f"{where}: there is no such field; {PREFIX}openapi.json has all"
    return f"{where}: {found['msg']}"
