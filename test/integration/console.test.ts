import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { useBrowser } from "../support/browser.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, untilAssigned } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();
const browser = useBrowser();

/** Starts an operator of this world with a console, and returns the console's URL. */
async function startWatched(world: World): Promise<string> {
  const listening = Promise.withResolvers<string>();
  const seams = {
    onListening: (addresses: { console: string | undefined }) => listening.resolve(`http://${addresses.console}`),
  };
  world.startOperator({ flags: ["--console-bind-address", "127.0.0.1:0"], seams });
  return await listening.promise;
}

const cellsOf = (page: Page, environment: string) =>
  page.locator("#environments tbody tr", { hasText: environment }).locator("td");
const rowsOf = (page: Page) => page.locator("#grid .row[data-id]:visible");
/** The state cell of the only visible session. */
const stateOf = (page: Page) => rowsOf(page).locator(".state");

describe("the console of an operator", () => {
  test("shows a session live from the opening of its Pod to its end, without its secrets", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      node: { fates: () => ({ kind: "worker", end: "hang" }) },
    });
    await world.createEnvironment();
    const url = await startWatched(world);
    await world.untilParked(1);
    await using opened = await browser.open(url);
    const { page, errors } = opened;
    const key = `${world.namespace}/${world.name}`;
    await cellsOf(page, key).getByText("✓ Ready").waitFor();
    await cellsOf(page, key).nth(3).getByText("1", { exact: true }).waitFor();

    const received: string[] = [];
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await untilAssigned(world, item);
    await stateOf(page).getByText("running").waitFor();
    expect(await rowsOf(page).locator(".pod").textContent()).toBe(pod.metadata.name);
    // The next sweep reads the first heartbeat.
    await rowsOf(page).locator(".lane .unseen", { hasText: "first heartbeat after" }).waitFor({ state: "attached" });
    const [claim] = world.claims;
    const secrets = [
      world.simulator.environmentKey(world.environmentId),
      ...Object.values(claim?.data ?? {}),
      ...Object.values(claim?.data ?? {}).map((value) => Buffer.from(String(value), "base64").toString("utf8")),
    ].filter((text) => text.startsWith("sk-") || text.length > 40);
    expect(secrets.length).toBeGreaterThan(1);
    received.push(await firstEvent(url), await page.content());

    world.simulator.stopItem(item.id);
    // Whether the worker notices the stop before its grace period ends depends on its heartbeats.
    await stateOf(page)
      .getByText(/✓ (Completed|StoppedByUser)/)
      .waitFor();
    await rowsOf(page).click();
    await page.locator("#detail dd", { hasText: item.id }).waitFor();
    received.push(await firstEvent(url), await page.content());
    for (const text of received) for (const secret of secrets) expect(text).not.toContain(secret);
    expect(errors).toEqual([]);
  });
});

/** The first event that a newly opened page receives. */
async function firstEvent(url: string): Promise<string> {
  const ending = new AbortController();
  const { body } = await fetch(`${url}/events`, { signal: ending.signal });
  let text = "";
  for await (const chunk of body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += chunk;
    if (text.includes("\n\n")) break;
  }
  ending.abort();
  return text;
}
