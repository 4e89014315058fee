# syntax=docker/dockerfile:1

# docker build -f examples/images/typescript.Dockerfile -t registry.example.com/agents/worker:1.4.2 examples
# With --build-arg PROGRAM=tool-runner.mjs for `lease: Operator`, or always-on.mjs for always-on workers.

# A tag moves; pin it with --build-arg BASE_IMAGE=node:24-slim@sha256:...
ARG BASE_IMAGE=node:24-slim
FROM ${BASE_IMAGE}
WORKDIR /app
RUN npm install --ignore-scripts --no-audit --no-fund @anthropic-ai/sdk@1.14.0 \
 && mkdir -p /workspace /mnt/memory && chown 10001:10001 /workspace /mnt/memory
ARG PROGRAM=worker.mjs
COPY worker/${PROGRAM} main.mjs
ENV WORKSPACE=/workspace HOME=/workspace
USER 10001:10001
CMD ["node", "main.mjs"]
