# syntax=docker/dockerfile:1

# docker build -f examples/images/go.Dockerfile -t registry.example.com/agents/worker:1.4.2 examples
# With --build-arg PROGRAM=./waiting for `parking: Program`.

# Tags change; pin them with --build-arg BUILD_IMAGE=golang:1.26-bookworm@sha256:... and BASE_IMAGE=debian:bookworm-slim@sha256:...
ARG BUILD_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
COPY worker-go/go.mod worker-go/go.sum ./
RUN go mod download
COPY worker-go .
ARG PROGRAM=.
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /worker "$PROGRAM"

FROM ${BASE_IMAGE}
# The certificates that TLS needs. bash is already in the image.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /workspace /mnt/memory && chown 10001:10001 /workspace /mnt/memory
COPY --from=build /worker /usr/local/bin/worker
ENV WORKSPACE=/workspace HOME=/workspace
USER 10001:10001
CMD ["worker"]
