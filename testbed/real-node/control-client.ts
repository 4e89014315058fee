import { request } from "node:http";
import { CONTROL_CALLS, type NodeControl } from "./control-protocol.ts";

/** The control of a node that another process keeps. Calls reject with what the node says, or when it is gone. */
export function connectNodeControl(socketPath: string): NodeControl {
  const calls = CONTROL_CALLS.map((name) => [name, (...args: unknown[]) => call(socketPath, name, args)]);
  return Object.fromEntries(calls) as NodeControl;
}

function call(socketPath: string, name: string, args: readonly unknown[]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    // On a connection of its own: one that is kept may be closed by the node in the moment in which it is used again.
    const outgoing = request({ socketPath, path: `/${name}`, method: "POST", agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () => {
        const value = JSON.parse(Buffer.concat(chunks).toString()) as unknown;
        if (response.statusCode === 200) resolve(value ?? undefined);
        else reject(new Error(`the node's ${name}: ${(value as { message: string }).message}`));
      });
    });
    outgoing.once("error", reject);
    outgoing.end(JSON.stringify(args));
  });
}
