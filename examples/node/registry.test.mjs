// A client in plain HTTP. Run: uvx charthouse exec -- node --test
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";

const { CHART_REGISTRY_CONTROL_URL: url, CHART_REGISTRY_CONTROL_TOKEN: token } = process.env;
const digestOf = (content) => `sha256:${createHash("sha256").update(content).digest("hex")}`;
let registry;
assert.ok(url, "there is no registry: uvx charthouse exec -- node --test");

async function control(method, path, body, at = url) {
  const response = await fetch(`${at}/${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  assert.ok(response.ok, `${path}: ${response.status}`);
  return response.status === 204 ? undefined : response.json();
}

before(async () => {
  registry = await control("POST", "registries", { versions: "immutable" });
});

after(() => control("DELETE", `registries/${registry.id}`));

async function pushBlob(repository, content) {
  const digest = digestOf(content);
  const started = await fetch(`${registry.url}/v2/${repository}/blobs/uploads/`, { method: "POST" });
  const location = new URL(started.headers.get("location"), registry.url);
  location.searchParams.set("digest", digest);
  const finished = await fetch(location, { method: "PUT", body: content });
  assert.equal(finished.status, 201);
  return { digest, size: content.length };
}

test("what is pushed is pulled", async () => {
  const config = await pushBlob("team-a/note", Buffer.from("{}"));
  const layer = await pushBlob("team-a/note", Buffer.from("hello"));
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.example.note.config+json", ...config },
    layers: [{ mediaType: "text/plain", ...layer }],
  });
  const put = await fetch(`${registry.url}/v2/team-a/note/manifests/1.0.0`, {
    method: "PUT",
    headers: { "Content-Type": "application/vnd.oci.image.manifest.v1+json" },
    body: manifest,
  });
  assert.equal(put.status, 201);
  const pulled = await fetch(`${registry.url}/v2/team-a/note/manifests/1.0.0`);
  assert.equal(await pulled.text(), manifest);
  assert.equal(pulled.headers.get("docker-content-digest"), digestOf(manifest));
});

test("a wrong digest is noticed", async () => {
  await control("POST", "seed", { charts: [{ name: "app", version: "1.2.3" }] }, registry.control_url);
  await control("POST", "faults", { rules: [{ path: "*/blobs/*", flip: 0 }] }, registry.control_url);
  const manifest = await (await fetch(`${registry.url}/v2/app/manifests/1.2.3`)).json();
  const { digest } = manifest.layers[0];
  const content = Buffer.from(await (await fetch(`${registry.url}/v2/app/blobs/${digest}`)).arrayBuffer());
  assert.notEqual(digestOf(content), digest);
});
