# syntax=docker/dockerfile:1

# docker build -f examples/images/typescript.Dockerfile -t registry.example.com/agents/worker:1.4.2 examples
# With --build-arg PROGRAM=waiting.mjs for `parking: Program`, tool-runner.mjs for `lease: Operator`, or always-on.mjs for
# always-on workers.

# Tags change; pin it with --build-arg BASE_IMAGE=node:24-slim@sha256:...
ARG BASE_IMAGE=node:24-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY worker/package.json worker/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
ARG PROGRAM=worker.mjs
COPY worker/${PROGRAM} main.mjs
# Node loads one file in half the time that it needs for the SDK's hundreds of files. A package with native parts can't be
# bundled: add it to --external, and copy it from node_modules.
RUN node_modules/.bin/rolldown main.mjs --platform node --no-codeSplitting --file dist/main.mjs

FROM ${BASE_IMAGE}
WORKDIR /app
RUN mkdir -p /workspace /mnt/memory && chown 10001:10001 /workspace /mnt/memory
COPY --from=build /build/dist/main.mjs .
ENV WORKSPACE=/workspace HOME=/workspace
USER 10001:10001
CMD ["node", "main.mjs"]
