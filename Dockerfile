# syntax=docker/dockerfile:1

# A tag moves; a release is built with the digest of the day (docs/releasing.md):
# --build-arg NODE_IMAGE=node:24-slim@sha256:...
ARG NODE_IMAGE=node:24-slim

# On the builder's platform: the bundle is the same for all, so that other platforms need no emulation.
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tools/bundle tools/bundle
COPY src src
RUN node_modules/.bin/rolldown -c tools/bundle/rolldown.config.ts

# What runs: one bundle, with the packages that it needs in it and their licences beside it.
FROM ${NODE_IMAGE}
ENV NODE_ENV=production
# A lookup of a name holds a thread until its name server answers. With Node's default of four threads, two names that never
# resolve would block all other connections.
ENV UV_THREADPOOL_SIZE=64
WORKDIR /app
COPY --from=build /build/dist dist
COPY bin bin
COPY package.json LICENSE ./
# A number, so that kubelet can check runAsNonRoot without reading the image's users.
USER 65532:65532
EXPOSE 8080 8081
# Most new objects are short-lived. Within the chart's memory limit, V8's default for them is so small that garbage collection
# took a third of the time (docs/performance/many-sessions.md).
ENTRYPOINT ["node", "--max-semi-space-size=8", "/app/bin/berth.mjs"]
CMD ["run"]
