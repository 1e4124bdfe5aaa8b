"""Which apiVersions Kubernetes no longer has.

Source: kubernetes.io/docs/reference/using-api/deprecation-guide.
"""

import re
from collections.abc import Iterator

_API_VERSION = re.compile(rb"^apiVersion: *([a-z0-9./]+) *\r?\nkind: *([A-Za-z]+) *\r?$", re.MULTILINE)
_WORKLOADS = frozenset({"Deployment", "DaemonSet", "ReplicaSet", "StatefulSet"})
# Since when, which kinds (none: all), what instead.
_REMOVED: dict[str, tuple[str, frozenset[str], str]] = {
    "extensions/v1beta1": ("1.16 to 1.22", frozenset(), "apps/v1, networking.k8s.io/v1 or policy/v1"),
    "apps/v1beta1": ("1.16", _WORKLOADS, "apps/v1"),
    "apps/v1beta2": ("1.16", _WORKLOADS, "apps/v1"),
    "admissionregistration.k8s.io/v1beta1": ("1.22", frozenset(), "admissionregistration.k8s.io/v1"),
    "apiextensions.k8s.io/v1beta1": ("1.22", frozenset(), "apiextensions.k8s.io/v1"),
    "apiregistration.k8s.io/v1beta1": ("1.22", frozenset(), "apiregistration.k8s.io/v1"),
    "certificates.k8s.io/v1beta1": ("1.22", frozenset(), "certificates.k8s.io/v1"),
    "coordination.k8s.io/v1beta1": ("1.22", frozenset(), "coordination.k8s.io/v1"),
    "networking.k8s.io/v1beta1": ("1.22", frozenset({"Ingress", "IngressClass"}), "networking.k8s.io/v1"),
    "rbac.authorization.k8s.io/v1beta1": ("1.22", frozenset(), "rbac.authorization.k8s.io/v1"),
    "scheduling.k8s.io/v1beta1": ("1.22", frozenset(), "scheduling.k8s.io/v1"),
    "storage.k8s.io/v1beta1": ("1.22", frozenset({"CSIDriver", "CSINode", "StorageClass"}), "storage.k8s.io/v1"),
    "batch/v1beta1": ("1.25", frozenset({"CronJob"}), "batch/v1"),
    "discovery.k8s.io/v1beta1": ("1.25", frozenset(), "discovery.k8s.io/v1"),
    "policy/v1beta1": ("1.25", frozenset(), "policy/v1, or for PodSecurityPolicy nothing"),
    "autoscaling/v2beta1": ("1.25", frozenset(), "autoscaling/v2"),
    "autoscaling/v2beta2": ("1.26", frozenset(), "autoscaling/v2"),
}


def removed(content: bytes) -> Iterator[tuple[int, str, str]]:
    """Objects written out in a template, `kind` right below `apiVersion`: line, what is gone, what to write instead."""
    for found in _API_VERSION.finditer(content):
        api_version, kind = found[1].decode(), found[2].decode()
        since, kinds, instead = _REMOVED.get(api_version, ("", frozenset(), ""))
        if since and (not kinds or kind in kinds):
            line = content.count(b"\n", 0, found.start()) + 1
            yield line, f"{api_version} {kind} is gone since Kubernetes {since}", instead
