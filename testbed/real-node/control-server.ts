import { createServer, type IncomingMessage, type Server } from "node:http";
import { CONTROL_CALLS, type NodeControl } from "./control-protocol.ts";

/** Serves a node's control on a unix socket: `POST /CALL`, with the arguments as a JSON array. */
export async function serveControl(control: NodeControl, path: string): Promise<Server> {
  const server = createServer((request, response) => {
    void answer(control, request).then(({ status, body }) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body) ?? "null");
    });
  });
  // A start can take a minute, so only the client limits the time.
  server.requestTimeout = 0;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ path }, resolve);
  });
  return server;
}

async function answer(control: NodeControl, request: IncomingMessage): Promise<{ status: number; body: unknown }> {
  const call = CONTROL_CALLS.find((name) => request.url === `/${name}`);
  if (!call) return { status: 404, body: { message: `no call ${request.url}` } };
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const args = JSON.parse(Buffer.concat(chunks).toString() || "[]") as unknown[];
    const perform = control[call] as (...args: unknown[]) => Promise<unknown>;
    return { status: 200, body: await perform.apply(control, args) };
  } catch (error) {
    return { status: 500, body: { message: error instanceof Error ? error.message : String(error) } };
  }
}
