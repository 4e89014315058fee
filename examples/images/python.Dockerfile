# syntax=docker/dockerfile:1

# docker build -f examples/images/python.Dockerfile -t registry.example.com/agents/worker:1.4.2 examples
# With --build-arg PROGRAM=waiting.py for `parking: Program`.

# Tags change; pin it with --build-arg BASE_IMAGE=python:3.13-slim@sha256:...
ARG BASE_IMAGE=python:3.13-slim
FROM ${BASE_IMAGE}
WORKDIR /app
COPY worker/requirements.txt .
# Python's images don't contain compiled modules of the standard library. Without this, each start would compile them,
# because the worker's user can't write the result. The compiled files contain no timestamps, which builders may rewrite.
RUN pip install --no-cache-dir --no-compile --require-hashes -r requirements.txt \
 && python3 -m compileall -qf --invalidation-mode unchecked-hash "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && mkdir -p /workspace /mnt/memory && chown 10001:10001 /workspace /mnt/memory
ARG PROGRAM=worker.py
COPY worker/${PROGRAM} main.py
ENV WORKSPACE=/workspace HOME=/workspace PYTHONUNBUFFERED=1
USER 10001:10001
CMD ["python3", "main.py"]
