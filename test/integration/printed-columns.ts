import { readFile } from "node:fs/promises";
import { Agent, request } from "undici";
import type { TestCluster } from "../support/cluster.ts";

/** The output of `kubectl get benv -o wide` for one Environment, by column. */
export async function printedColumns(
  cluster: Pick<TestCluster, "server" | "caFile" | "adminToken">,
  namespace: string,
  name: string,
): Promise<Record<string, unknown>> {
  const agent = new Agent({ connect: { ca: await readFile(cluster.caFile, "utf8") } });
  const path = `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments/${name}`;
  try {
    const { body } = await request(cluster.server + path, {
      dispatcher: agent,
      headers: {
        authorization: `Bearer ${cluster.adminToken}`,
        accept: "application/json;as=Table;v=v1;g=meta.k8s.io",
      },
    });
    const { columnDefinitions, rows } = (await body.json()) as {
      columnDefinitions: { name: string }[];
      rows: { cells: unknown[] }[];
    };
    return Object.fromEntries(columnDefinitions.map(({ name }, index) => [name, rows[0]?.cells[index]]));
  } finally {
    await agent.close();
  }
}
