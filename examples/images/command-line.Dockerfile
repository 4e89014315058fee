# syntax=docker/dockerfile:1

# The vendor's command-line worker, released on https://github.com/anthropics/anthropic-cli/releases:
# docker build -f examples/images/command-line.Dockerfile -t registry.example.com/agents/worker:1.4.2 \
#   --build-arg ANT_VERSION=... --build-arg ANT_SHA256=... examples

# Tags change; pin it with --build-arg BASE_IMAGE=debian:bookworm-slim@sha256:...
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS download
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates curl
ARG ANT_VERSION
# The checksum of the archive for your architecture.
ARG ANT_SHA256
ARG TARGETARCH=amd64
RUN : "${ANT_VERSION:?give --build-arg ANT_VERSION}" "${ANT_SHA256:?give --build-arg ANT_SHA256}" \
 && curl -fsSL -o ant.tar.gz "https://github.com/anthropics/anthropic-cli/releases/download/v${ANT_VERSION}/ant_${ANT_VERSION}_linux_${TARGETARCH}.tar.gz" \
 && echo "${ANT_SHA256}  ant.tar.gz" | sha256sum --check \
 && tar -xzf ant.tar.gz -C /usr/local/bin ant

FROM ${BASE_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /workspace /mnt/memory && chown 10001:10001 /workspace /mnt/memory
COPY --from=download /usr/local/bin/ant /usr/local/bin/ant
ENV HOME=/workspace
WORKDIR /workspace
USER 10001:10001
CMD ["ant", "beta:worker", "run"]
