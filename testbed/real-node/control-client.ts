import { request } from "node:http";
import { CONTROL_CALLS, type NodeControl } from "./control-protocol.ts";

/** Connects to a node that another process runs. Calls reject with the node's error, or when the node is gone. */
export function connectNodeControl(socketPath: string): NodeControl {
  const calls = CONTROL_CALLS.map((name) => [name, (...args: unknown[]) => call(socketPath, name, args)]);
  return Object.fromEntries(calls) as NodeControl;
}

function call(socketPath: string, name: string, args: readonly unknown[]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    // Use a separate connection for each call, because the node could close a kept one just when it's reused.
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
