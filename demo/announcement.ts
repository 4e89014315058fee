import type { DemoOptions } from "./options.ts";
import type { Mode } from "./sample.ts";
import type { Stage } from "./stage.ts";

const HOW: Readonly<Record<Mode, string>> = {
  sessions: "a Pod for each session, some of them warm",
  workers: "always-on workers, scaled with the queue",
};

type Announced = Pick<Stage, "cluster" | "environments" | "metricsUrl" | "consoleUrl">;

/** What the demo prints before the first session: what runs, and how to inspect it. */
export function announcement(stage: Announced, { scripted }: Pick<DemoOptions, "scripted">): string[] {
  const { cluster, environments, metricsUrl, consoleUrl } = stage;
  const { kubectl, namespace } = cluster;
  const workers = scripted ? "workers played by the simulated node" : "stock workers, each a process on this machine";
  const width = Math.max(...environments.map(({ name }) => name.length));
  const kinds = environments.some(({ mode }) => mode === "workers") ? "benv,deployments,pods" : "benv,pods";
  return [
    `${cluster.about}, and ${workers}. The Environments:`,
    ...environments.map(({ name, mode, sample }) => `  ${name.padEnd(width)}  ${HOW[mode]}: ${relative(sample.file)}`),
    "",
    `Watch it in a browser: ${consoleUrl}`,
    "",
    "Inspect it from another terminal:",
    "",
    `  ${kubectl} get ${kinds} -n ${namespace}`,
    ...environments.map(({ name }) => `  ${kubectl} describe benv -n ${namespace} ${name}`),
    `  ${kubectl} get events -n ${namespace} --watch`,
    `  curl ${metricsUrl}`,
    ...(cluster.foreign ? [] : [`  export KUBECONFIG=${cluster.kubeconfig}`]),
    "",
  ];
}

/** A path relative to the current folder. */
function relative(file: URL): string {
  const path = decodeURIComponent(file.pathname);
  const here = `${process.cwd()}/`;
  return path.startsWith(here) ? path.slice(here.length) : path;
}
