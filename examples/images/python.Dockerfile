# syntax=docker/dockerfile:1

# docker build -f examples/images/python.Dockerfile -t registry.example.com/agents/worker:1.4.2 examples

# A tag moves; pin it with --build-arg BASE_IMAGE=python:3.13-slim@sha256:...
ARG BASE_IMAGE=python:3.13-slim
FROM ${BASE_IMAGE}
WORKDIR /app
COPY worker/requirements.txt .
RUN pip install --no-cache-dir --require-hashes -r requirements.txt \
 && mkdir -p /workspace /mnt/memory && chown 10001:10001 /workspace /mnt/memory
COPY worker/worker.py .
ENV WORKSPACE=/workspace HOME=/workspace PYTHONUNBUFFERED=1
USER 10001:10001
CMD ["python3", "worker.py"]
