"""What is asked for and what is answered under `/api/v1`: OpenAPI's description of it is made from this."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from charthouse.auth.access import ANONYMOUS

NAME_LENGTH = 64

LARGEST = 2**63 - 1  # that a column holds


def _storable(text: str) -> str:
    """PostgreSQL has no text with NUL, and nothing can write half of a surrogate pair."""
    if "\0" in text or (not text.isascii() and text != text.encode("utf-8", "replace").decode()):
        raise ValueError("this is no text that could be stored")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[Text, Field(max_length=NAME_LENGTH, examples=["ann"])]
Action = Literal["pull", "push", "overwrite", "delete"]
PatternText = Annotated[
    Text, Field(max_length=300, description="team-a/app, team-a/* for all below, or *.", examples=["team-a/*"])
]


class Asked(BaseModel):
    """A field that there is not is refused: nobody gives himself a right by a word that is overlooked."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewUser(Asked):
    name: Name
    password: Text = Field(max_length=1000, examples=["correct horse battery staple"])
    administrator: bool = False


class UserChange(Asked):
    """What is not given stays."""

    password: Text | None = Field(default=None, max_length=1000, examples=["another horse, other staples"])
    disabled: bool | None = None


class User(BaseModel):
    name: str
    administrator: bool
    disabled: bool
    from_file: bool = Field(description="He is of the htpasswd file, and is changed there.")
    groups: list[str]


class Limits(Asked):
    """What is not given has no limit."""

    quota_bytes: int | None = Field(default=None, ge=1, le=LARGEST, examples=[10737418240])
    quota_manifests: int | None = Field(default=None, ge=1, le=LARGEST, examples=[1000])
    blob_limit: int | None = Field(default=None, ge=1024, le=LARGEST, examples=[104857600])
    uploads_at_once: int | None = Field(default=None, ge=1, le=1000, examples=[8])


class Usage(BaseModel):
    """Of the manifests that he pushed and that are still here, with the blobs that they name."""

    bytes: int
    manifests: int
    limits: Limits


class Grant(Asked):
    subject: Text = Field(
        max_length=NAME_LENGTH + 1, description=f"A user, @ and a group, or {ANONYMOUS}.", examples=["ann"]
    )
    pattern: PatternText
    actions: list[Action] = Field(min_length=1, examples=[["pull", "push"]])


class Judgement(BaseModel):
    allowed: bool
    why: str


class NewToken(Asked):
    name: Name = Field(examples=["ci"])
    repositories: list[PatternText] = Field(min_length=1, max_length=100, examples=[["team-a/*"]])
    actions: list[Action] = Field(min_length=1, examples=[["pull", "push"]])
    expires_at: int | None = Field(
        default=None, gt=0, le=LARGEST, description="Unix milliseconds; null never ends.", examples=[4102444800000]
    )


class Token(BaseModel):
    name: str
    repositories: list[str]
    actions: list[Action]
    created_at: int = Field(description="Unix milliseconds, as all times.")
    expires_at: int | None
    used_at: int | None = Field(description="At most a minute old.")


class MadeToken(BaseModel):
    name: str
    secret: str = Field(description="It is not shown again.")


class Entry(BaseModel):
    id: int
    at: int
    who: str
    action: str
    target: str
    address: str
    request_id: str
    count: int = Field(description="Above 1 for refusals, which are gathered.")


class Entries(BaseModel):
    entries: list[Entry]
    after: int | None = Field(description="To be given as `after` for those that follow; null at the end.")


class WhoAmI(BaseModel):
    name: str
    administrator: bool


class Error(BaseModel):
    code: str
    message: str


class Errors(BaseModel):
    errors: list[Error]
