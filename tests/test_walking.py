import httpx


async def test_ping(client: httpx.AsyncClient):
    assert (await client.get("/v2/")).status_code == 200
    r = await client.get("/readyz")
    assert r.status_code == 200


async def test_upload(client):
    import hashlib

    for data in (b"a", b"x" * 100_000):
        d = "sha256:" + hashlib.sha256(data).hexdigest()
        r = await client.post("/v2/a/b/blobs/uploads/?digest=" + d, content=data)
        assert r.status_code == 201, r.text
        assert (await client.get(f"/v2/a/b/blobs/{d}")).content == data
