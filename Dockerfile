# docker build -t charthouse .
# docker run --read-only -v charts:/data -p 127.0.0.1:5000:5000 charthouse --open-to-everyone
# The registry of the container has no users: whoever reaches the published port may push.

FROM python:3.13-slim AS wheel
WORKDIR /src
COPY tests/requirements.txt ./
# Of what the tests need only the build backend, with its hashes.
RUN sed -n '/^\(hatchling\|packaging\|pathspec\|pluggy\|trove-classifiers\)==/,/# via/p' requirements.txt > build.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY migrations migrations
RUN python -m hatchling build -t wheel

FROM python:3.13-slim
WORKDIR /opt/charthouse
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY --from=wheel /src/dist dist
RUN pip install --no-cache-dir --no-deps dist/*.whl
# A new volume takes its owner from here. A folder of the host that is mounted instead has to belong to this user.
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 5000
ENV CHARTHOUSE_HOST=0.0.0.0 CHARTHOUSE_DATA=/data PYTHONDONTWRITEBYTECODE=1
# It asks for TLS when the certificate is given by its variable: that is the way to give it here.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client as h, os, ssl; t = os.environ.get('CHARTHOUSE_TLS_CERT'); c = h.HTTPSConnection('127.0.0.1', 5000, timeout=3, context=ssl._create_unverified_context()) if t else h.HTTPConnection('127.0.0.1', 5000, timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["charthouse", "serve"]
