import { basename } from "node:path";
import { expect, test } from "vitest";
import { SECRETS } from "../../../src/kube/resource.ts";
import { LeakSearch, leakText } from "../../support/leak-search.ts";
import { everyCredential, everyPlace, PLACES } from "../support/leaks.ts";
import { isInSandbox, type SeenProcess, seenProcesses } from "../support/process-watch.ts";
import { hasNodeControl } from "../support/provided.ts";
import { serveOne, untilEnded } from "../support/session-life.ts";
import { startE2eWorld } from "../support/world.ts";

/** Limit for the leaks that a failure lists. */
const MOST_SHOWN = 50;

test("credentials of the run appear only where they belong, in no log, object, metric or other process", async () => {
  // One more session, so that there is something to find even if this file runs alone.
  await using world = await startE2eWorld();
  await untilEnded(world, await serveOne(world), "Completed");
  const credentials = await everyCredential(world);
  expect(credentials.size).toBeGreaterThanOrEqual(3);
  const search = new LeakSearch(credentials);
  const places = await everyPlace(world);
  const leaks = PLACES.flatMap((kind) => search.find(places[kind])).map(leakText);
  expect(leaks.slice(0, MOST_SHOWN)).toEqual([]);

  // Finding nothing means nothing unless every place was searched.
  for (const kind of hasNodeControl() ? PLACES : (["logs", "objects", "metrics"] as const)) {
    const size = places[kind].reduce((sum, { text }) => sum + text.length, 0);
    expect([kind, size > 0]).toEqual([kind, true]);
  }
  const said = places.logs.filter(({ where, text }) => where.includes("operator") && text.includes(world.namespace));
  expect(said).not.toEqual([]);
  if (hasNodeControl()) {
    for (const name of ["kubelet", "containerd", "kube-apiserver", "audit"]) {
      const ofIt = places.logs.filter(({ where, text }) => basename(where).includes(name) && text.length > 0);
      expect([name, ofIt.length > 0]).toEqual([name, true]);
    }
  }
  // The search also finds the key where it belongs.
  const secrets = await world.kube.list(SECRETS, { namespace: world.namespace });
  expect(search.find([{ where: "Secrets", text: JSON.stringify(secrets) }])).toMatchObject([{ form: "base64" }]);
});

test.skipIf(!hasNodeControl())(
  "a Pod's processes have one session, and each container's the credential of one work item",
  async () => {
    await using world = await startE2eWorld();
    await untilEnded(world, await serveOne(world), "Completed");
    const processes = await seenProcesses(world.cluster.dir);
    const sandboxed = processes.filter(isInSandbox);
    const found = new LeakSearch(await everyCredential(world)).find(
      sandboxed.map(({ pod = "", variables }) => ({ where: pod, text: variables.join("\n") })),
    );
    // The watch has seen workers with their credentials.
    expect(found).not.toEqual([]);
    expect(severalOf("ANTHROPIC_WORK_SECRET", sandboxed, "container")).toEqual([]);
    expect(severalOf("ANTHROPIC_SESSION_ID", sandboxed, "pod")).toEqual([]);
  },
);

/** The Pods or containers whose processes have different values of a variable. */
function severalOf(name: string, processes: readonly SeenProcess[], by: "pod" | "container"): string[] {
  const byPlace = Map.groupBy(processes, ({ [by]: place = "" }) => place);
  const valuesOf = (all: readonly SeenProcess[]) =>
    new Set(all.flatMap(({ variables }) => variables.filter((variable) => variable.startsWith(`${name}=`))));
  return [...byPlace].filter(([, all]) => valuesOf(all).size > 1).map(([place]) => place);
}
