import type { EnqueueInput } from "../../../simulator/arrivals.ts";
import type { ItemRecord } from "../../../simulator/item.ts";
import { nodeControl } from "./operator-process.ts";
import type { E2eWorld } from "./world.ts";

/** Access to the simulator while the API server's proxy is unavailable. */
export interface ItemsFromNode {
  enqueue(input?: EnqueueInput): Promise<ItemRecord>;
  item(id: string): Promise<ItemRecord>;
  /** Stops an item as the platform does when a user asks for it. */
  stop(id: string): Promise<void>;
  untilItem(id: string, isSo: (item: ItemRecord) => boolean): Promise<ItemRecord>;
}

/**
 * A request by one Node.js process. Its arguments are the URL, the method and the body; the token is in its
 * environment.
 */
const REQUEST = `
const [url, method, body] = process.argv.slice(1);
const headers = { "x-simulator-token": process.env.TOKEN, "content-type": "application/json" };
const response = await fetch(url, { method, headers, ...(body ? { body } : {}) });
if (!response.ok) throw new Error(response.status + " " + (await response.text()));
process.stdout.write(await response.text());
`;

/** Sends requests to the simulator from the node itself, which needs no API server. */
export function itemsFromNode(world: E2eWorld): ItemsFromNode {
  const control = nodeControl(world);
  const { url, adminToken } = world.cluster.simulator;
  const ask = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const args = ["--input-type=module", "--eval", REQUEST, "--", `${url}/admin/${path}`, method];
    if (body !== undefined) args.push(JSON.stringify(body));
    const { code, stdout, stderr } = await control.run(process.execPath, args, { TOKEN: adminToken });
    if (code !== 0) throw new Error(`simulator: ${method} ${path}: ${stderr}`);
    return (stdout === "" ? undefined : JSON.parse(stdout)) as T;
  };
  const item = (id: string) => ask<ItemRecord>("GET", `items/${id}`);
  return {
    item,
    enqueue: (input = {}) => ask("POST", `environments/${world.environmentId}/items`, input),
    stop: (id) => ask("POST", `items/${id}/stop`, {}),
    untilItem: (id, isSo) =>
      world.until(`item ${id} as wanted`, async () => {
        const now = await item(id);
        return isSo(now) && now;
      }),
  };
}
