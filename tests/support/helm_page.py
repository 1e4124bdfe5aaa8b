"""Every command of Helm's page "Use OCI-based registries", in its order.

Source: https://helm.sh/docs/topics/registries/
"""

import re
from pathlib import Path

from support import charts
from support.kubernetes import Kubernetes
from support.tools import Tool


def run(helm: Tool, kubernetes: Kubernetes, host: str, namespace: str, work: Path, *flags: object) -> None:
    """`flags` are what Helm needs to reach `host`."""
    cluster = {"KUBECONFIG": str(kubernetes.write_config(work / "kubeconfig"))}
    where = f"oci://{host}/{namespace}/helm-charts"
    chart = f"{where}/mychart"
    version = ("--version", "0.1.0", *flags)

    login = helm("registry", "login", "-u", "myuser", "-p", "secret", host, *flags)
    assert "Login Succeeded" in login
    helm("package", charts.write(work, "mychart", "0.1.0"))
    pushed = helm("push", "mychart-0.1.0.tgz", where, *flags)
    found = re.search(r"Digest: (sha256:\w+)", pushed)
    assert found
    digest = found[1]
    helm("show", "all", chart, *version)
    helm("template", "myrelease", chart, *version)
    helm("install", "myrelease", chart, *version, **cluster)
    helm("upgrade", "myrelease", chart, *version, **cluster)
    helm("pull", chart, *version)
    helm("show", "all", f"{chart}@{digest}", *flags)
    helm("template", "myrelease", f"{chart}@{digest}", *flags)
    helm("install", "byname", f"{chart}:0.1.0", *flags, **cluster)
    helm("install", "bydigest", f"{chart}@{digest}", *flags, **cluster)
    helm("upgrade", "bydigest", f"{chart}@{digest}", *flags, **cluster)
    helm("pull", f"{chart}@{digest}", *flags)
    dependency = {"name": "mychart", "version": "0.1.0", "repository": where}
    helm("dependency", "update", charts.write(work, "parent", "1.0.0", dependencies=[dependency]), *flags)
    helm("registry", "logout", host)
