#!/usr/bin/env bash
# helm and oras against a registry of their own. Run: uvx charthouse exec --tls -- ./test.sh
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

helm create app >/dev/null
helm package app --version 1.2.3 >/dev/null
helm push app-1.2.3.tgz "oci://$CHART_REGISTRY_HOST/team-a"

mkdir pulled
helm pull "oci://$CHART_REGISTRY_HOST/team-a/app" --version '^1' --destination pulled
cmp app-1.2.3.tgz pulled/app-1.2.3.tgz

echo "approved" >note.txt
oras attach --artifact-type application/vnd.example.note "$CHART_REGISTRY_HOST/team-a/app:1.2.3" note.txt
oras discover "$CHART_REGISTRY_HOST/team-a/app:1.2.3" | grep application/vnd.example.note

requests=$(curl -sf -H "Authorization: Bearer $CHART_REGISTRY_CONTROL_TOKEN" "$CHART_REGISTRY_CONTROL_URL/requests")
grep -q '/referrers/' <<<"$requests"
echo "all is well"
