"""`charthouse exec`."""

from pathlib import Path
from typing import Annotated

import typer

from charthouse.commands import setting_option

family = typer.Typer()


@family.command(name="exec", context_settings={"allow_interspersed_args": False})
def execute(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run, with its own words.")],
    auth: Annotated[
        str, typer.Option("--auth", help="none, basic or bearer: clients have to sign in; bearer gives tokens.")
    ] = "none",
    anonymous_pull: Annotated[bool, typer.Option("--anonymous-pull", help="With --auth: pulls need no user.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS, and plain HTTP on the same port.")] = False,
    mtls: Annotated[bool, typer.Option("--mtls", help="Speak TLS, to clients that show a certificate.")] = False,
    seed: Annotated[Path | None, typer.Option("--seed", help="Folder whose charts it has.")] = None,
    policy: Annotated[str, setting_option("policy")] = "oci",
    versions: Annotated[str, setting_option("versions")] = "mutable",
    rules: Annotated[str, typer.Option("--rules", help="off stores broken charts too.")] = "on",
    host: Annotated[list[str] | None, setting_option("host")] = None,
    san: Annotated[list[str] | None, typer.Option("--san", help="Further names, for the certificate too.")] = None,
    personality: Annotated[str | None, typer.Option("--personality", help="Behave as another registry does.")] = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="Write the requests here: a line of JSON each, or a .har.")
    ] = None,
) -> None:
    """Run a command with a registry for tests of its own.

    The command finds it by CHART_REGISTRY_HOST, CHART_REGISTRY_URL, CHART_REGISTRY_USERNAME, CHART_REGISTRY_PASSWORD,
    CHART_REGISTRY_CA_FILE, CHART_REGISTRY_CLIENT_CERT_FILE, CHART_REGISTRY_CLIENT_KEY_FILE and
    CHART_REGISTRY_CONTROL_TOKEN; Helm and Docker are configured for it.

    Examples:

      charthouse exec -- go test ./...

      charthouse exec --tls --seed charts --log requests.jsonl -- make test
    """
    from charthouse.testing.running import run

    words = {"host": host} if host else {}
    status = run(
        command,
        seed=seed,
        log=log,
        auth=auth,
        anonymous_pull=anonymous_pull,
        tls=tls,
        mtls=mtls,
        policy=policy,
        versions=versions,
        san=san or (),
        rules=rules,
        personality=personality,
        **words,
    )
    raise typer.Exit(status)
