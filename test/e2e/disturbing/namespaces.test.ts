import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { FINALIZER } from "../../../src/api/names.ts";
import { tryKubectl } from "../support/kubectl.ts";
import { installScoped } from "../support/scoped-release.ts";
import { serveOne, untilSettled, untilState } from "../support/session-life.ts";
import { startE2eWorld } from "../support/world.ts";

test("a release for some namespaces serves only these, with Roles alone", async () => {
  await using own = await startE2eWorld();
  await using foreign = await startE2eWorld();
  await using release = await installScoped(own, `berth-${randomBytes(3).toString("hex")}`, [own.namespace]);

  const served = await serveOne(own, { script: bashScript("echo served") });
  await foreign.createEnvironment();
  const waiting = await foreign.simulator.enqueue(foreign.environmentId);
  await untilSettled(own, served, "Completed");
  expect(await release.log()).toContain(own.namespace);

  // No operator serves the other namespace: its Environment does not even have a status.
  expect(foreign.environment?.status).toEqual({ observedGeneration: -1 });
  expect(foreign.pods).toEqual([]);
  expect(await foreign.simulator.item(waiting.id)).toMatchObject({ state: "queued", offers: [] });
  const may = async (verb: string, resource: string, namespace?: string) => {
    const where = namespace === undefined ? ["--all-namespaces"] : ["--namespace", namespace];
    const { stdout } = await tryKubectl(own.cluster, ["auth", "can-i", verb, resource, "--as", release.user, ...where]);
    return stdout.trim();
  };
  expect(await may("create", "pods", own.namespace)).toBe("yes");
  for (const resource of ["pods", "secrets", "environments.berth.dev", "events"]) {
    expect([resource, await may("list", resource)]).toEqual([resource, "no"]);
    expect([resource, await may("get", resource, foreign.namespace)]).toEqual([resource, "no"]);
    expect([resource, await may("get", resource, release.namespace)]).toEqual([resource, "no"]);
  }
  // The operator never requests what it has no right to.
  const refused = (await release.log()).split("\n").filter((line) => /forbidden/i.test(line));
  expect(refused).toEqual([]);
});

test("its uninstall removes finalizers only from its own Environments", async () => {
  await using own = await startE2eWorld();
  const served = await (async () => {
    await using release = await installScoped(own, `berth-${randomBytes(3).toString("hex")}`, [own.namespace]);
    const served = await serveOne(own, { script: bashScript("echo served; until [ -e go ]; do sleep 0.2; done") });
    await untilState(own, served.item, "active");
    expect(own.environment?.metadata.finalizers).toEqual([FINALIZER]);
    expect(release.namespace).not.toBe(own.namespace);
    return served;
  })();
  // The release is gone, and the cluster-wide release continues the session.
  expect(served.pod.metadata.name).toBeDefined();
  await own.simulator.stopItem(served.item.id);
  await untilState(own, served.item, "stopped");
  await own.untilServed(1);
});
