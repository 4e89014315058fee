/**
 * The parts of undici that src imports. Its index also loads fetch, WebSocket, caches and mocks: 12 MB that the
 * operator doesn't need (docs/performance/start-up.md). undici doesn't guarantee these paths, but its version is
 * pinned, and a missing name fails the build. This is plain JavaScript because the paths have no types.
 */
import * as api from "undici/lib/api/index.js";
import Dispatcher from "undici/lib/dispatcher/dispatcher.js";

export { default as buildConnector } from "undici/lib/core/connect.js";
export { default as Agent } from "undici/lib/dispatcher/agent.js";
export { default as EnvHttpProxyAgent } from "undici/lib/dispatcher/env-http-proxy-agent.js";
export { default as ProxyAgent } from "undici/lib/dispatcher/proxy-agent.js";

// undici's index does the same.
Object.assign(Dispatcher.prototype, api);
