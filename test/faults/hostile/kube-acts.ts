import type { Act } from "../../work/strict-server.ts";

/** A line that a watch sends before it ends or hangs. */
type Line = Record<string, unknown> | string;

const lines =
  (...said: readonly Line[]): Act =>
  (response) => {
    response.writeHead(200, { "content-type": "application/json" });
    for (const line of said) response.write(typeof line === "string" ? line : `${JSON.stringify(line)}\n`);
    response.end();
  };

const status = (code: unknown, reason: unknown, more: object = {}) => ({
  type: "ERROR",
  object: { kind: "Status", apiVersion: "v1", status: "Failure", message: "by the test", reason, code, ...more },
});

const named = (more: object) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "made-up", namespace: "default", uid: "u", resourceVersion: "1", ...more },
  spec: { containers: [] },
});

/** Sends bytes without a line end, as fast as the client reads them, until the client closes the connection. */
const endlessLine: Act = (response, _seen, socket) => {
  response.writeHead(200, { "content-type": "application/json" });
  response.write('{"type":"ADDED","object":{"metadata":{"name":"');
  const piece = "x".repeat(100_000);
  const more = () => {
    while (!socket.destroyed && response.write(piece));
  };
  response.on("drain", more);
  more();
};

/** Watch replies that no API server sends. Each ends the watch, or makes its reader end it. */
export const WATCH_ACTS: Readonly<Record<string, Act>> = {
  "a torn line": lines('{"type":"ADDED","obj'),
  "a line that is no JSON": lines("<html></html>\n"),
  "a line without end": endlessLine,
  "no UTF-8": (response) => response.writeHead(200).end(Buffer.from([0xff, 0xfe, 0x0a])),
  "a bookmark without a resourceVersion": lines({ type: "BOOKMARK", object: { metadata: {} } }),
  "a bookmark without metadata": lines({ type: "BOOKMARK", object: {} }),
  "an object without metadata": lines({ type: "ADDED", object: {} }),
  "an object without a name": lines({ type: "MODIFIED", object: named({ name: undefined }) }),
  "an object whose labels are a list": lines({ type: "ADDED", object: named({ labels: ["x"] }) }),
  "an event of no kind": lines({ type: "MOVED", object: named({}) }),
  "an error that says Expired": lines(status(410, "Expired")),
  "an error without a Status": lines({ type: "ERROR", object: { metadata: {} } }),
  "an error whose code is a text": lines(status("410", 5, { details: { causes: "x" } })),
  "an error with causes of nothing": lines(status(504, "Timeout", { details: { causes: [null, 5, {}] } })),
  "a refusal that asks to wait for years": (response) =>
    response
      .writeHead(429, { "retry-after": "1", "content-type": "application/json" })
      .end(JSON.stringify({ ...status(429, "TooManyRequests").object, details: { retryAfterSeconds: 1e300 } })),
  "a reset": (_response, _seen, socket) => void socket.resetAndDestroy(),
};

const list = (body: unknown): Act => {
  return (response) => void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
};

const DATE = "Fri, 31 Dec 9999 23:59:59 GMT";

/** Replies to a list request that are not valid lists. */
export const LIST_ACTS: Readonly<Record<string, Act>> = {
  "items of nothing": list({ items: [null], metadata: { resourceVersion: "1" } }),
  "no items": list({ metadata: { resourceVersion: "1" } }),
  "no version": list({ items: [], metadata: {} }),
  "items without metadata": list({ items: [{}], metadata: { resourceVersion: "1" } }),
  "a Status with status 200": list(status(404, "NotFound").object),
  "a continue token that is a number": list({ items: [], metadata: { resourceVersion: "1", continue: 5 } }),
  "an unknown continue token": list({ items: [], metadata: { resourceVersion: "1", continue: "nobody's" } }),
};

/** Refusals that any request may get. */
export const REFUSALS: Readonly<Record<string, Act>> = {
  "401": (response) => response.writeHead(401).end(),
  "429 for as long as a date says": (response) => response.writeHead(429, { "retry-after": DATE }).end(),
  "503 with a Retry-After below zero": (response) => response.writeHead(503, { "retry-after": "-5" }).end(),
  "409 without a Status": (response) => response.writeHead(409).end("conflict"),
  "404 of a proxy": (response) => response.writeHead(404).end("no such backend"),
  "500 with causes of nothing": (response) =>
    response.writeHead(500).end(JSON.stringify(status(500, "", { details: { causes: [null] } }).object)),
};
