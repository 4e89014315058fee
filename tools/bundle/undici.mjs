/**
 * Undici with what src uses of it, by src's own imports: its index loads fetch, WebSocket, caches and mocks as well, 12 MB
 * that nobody needs (docs/performance/start-up.md). These paths are no promise of undici's, but its version is pinned, and
 * a name that is missing here ends the build. Plain JavaScript: the paths have no types.
 */
import * as api from "undici/lib/api/index.js";
import Dispatcher from "undici/lib/dispatcher/dispatcher.js";

export { default as buildConnector } from "undici/lib/core/connect.js";
export { default as Agent } from "undici/lib/dispatcher/agent.js";
export { default as EnvHttpProxyAgent } from "undici/lib/dispatcher/env-http-proxy-agent.js";
export { default as ProxyAgent } from "undici/lib/dispatcher/proxy-agent.js";

// As its index does it.
Object.assign(Dispatcher.prototype, api);
