import { type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

/** For a proxy's answer to a request that asks for another protocol. `join` passes a consent on. */
export function responseTo(request: IncomingMessage): ServerResponse {
  const response = new ServerResponse(request);
  response.assignSocket(request.socket);
  // The server reads no further request from this connection.
  response.shouldKeepAlive = false;
  response.on("finish", () => request.socket.end());
  return response;
}

/** Passes a stream's bytes on in both directions, after the server's answer and the first bytes behind it. */
export function join(near: Socket, answer: IncomingMessage, far: Duplex, first: Buffer): void {
  const lines = [`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}`];
  for (let at = 0; at < answer.rawHeaders.length; at += 2) {
    lines.push(`${answer.rawHeaders[at]}: ${answer.rawHeaders[at + 1]}`);
  }
  near.write(`${lines.join("\r\n")}\r\n\r\n`);
  near.write(first);
  near.on("close", () => far.destroy());
  far.on("error", () => near.resetAndDestroy());
  far.on("close", () => near.destroy());
  near.pipe(far).pipe(near);
}
