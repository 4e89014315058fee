import { expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { CONFIG_MAPS } from "../../../src/kube/resource.ts";
import { e2eCluster } from "../support/provided.ts";
import { serveOne, untilAnswered, untilEnded } from "../support/session-life.ts";
import type { StockWorker } from "../support/worker-template.ts";
import { startE2eWorld } from "../support/world.ts";

const CA = "work-api-ca";
const CA_DIR = "/etc/work-api";
/** What each runtime reads additional authorities from. */
const VARIABLES: Record<StockWorker, string> = {
  typescript: "NODE_EXTRA_CA_CERTS",
  python: "SSL_CERT_FILE",
  go: "SSL_CERT_FILE",
};

test.each(["typescript", "python", "go"] as const)(
  "a server in the cluster with its own certificate authority, and a %s worker",
  async (worker) => {
    const { namespace, tls } = e2eCluster().simulator;
    const pods = [
      {
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
        podSelector: { matchLabels: tls.labels },
      },
    ];
    await using world = await startE2eWorld({
      worker,
      api: { baseUrl: tls.url },
      spec: { network: { egress: { pods } } },
      container: {
        env: [{ name: VARIABLES[worker], value: `${CA_DIR}/ca.crt` }],
        volumeMounts: [{ name: CA, mountPath: CA_DIR }],
      },
      podSpec: { volumes: [{ name: CA, configMap: { name: CA } }] },
    });
    await world.kube.create(CONFIG_MAPS, {
      metadata: { name: CA, namespace: world.namespace },
      data: { "ca.crt": tls.certificate },
    });
    const served = await serveOne(world, { script: bashScript("echo hello") });
    // The Go worker adds empty lines.
    const answers = await untilAnswered(world, served.item, 1);
    expect(answers.map(([text, isError]) => [text?.trim(), isError])).toEqual([["hello", false]]);
    await untilEnded(world, served, "Completed");
  },
);
