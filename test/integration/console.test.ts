import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { conditionFor } from "../../src/api/conditions.ts";
import { scrollThrough } from "../console/support/scrolling.ts";
import { manySessions, StagedSource, session, startConsole } from "../console/support/staged.ts";
import { keepPicture, useBrowser } from "../support/browser.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, untilAssigned } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";

/** The number of sessions of a large cluster: current ones and those of the last minutes. */
const MANY = 5_000;
/** A tenth of them. */
const FEWER = 500;

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

/** All violations of WCAG 2.2 A and AA that axe finds, as text. */
async function faultsOf(page: Page): Promise<string[]> {
  await page.evaluate(await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const results: AxeResults = await page.evaluate(
    "axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })",
  );
  return results.violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(" ")}`);
}

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
    await cellsOf(page, key).getByText("✓ ready").waitFor();
    await cellsOf(page, key).nth(3).getByText("1", { exact: true }).waitFor();

    const received: string[] = [];
    const item = world.simulator.enqueue(world.environmentId);
    const pod = await untilAssigned(world, item);
    await stateOf(page).getByText("active").waitFor();
    expect(await rowsOf(page).locator(".pod").textContent()).toBe(pod.metadata.name);
    // The next sweep reads the first heartbeat.
    await rowsOf(page).locator(".lane .unseen", { hasText: "first beat after" }).waitFor({ state: "attached" });
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

  test("shows workers, and announces when an Environment is no longer ready", async () => {
    await using served = await startConsole();
    const source = new StagedSource();
    const workers = { desired: 3, replicas: 3, ready: 2, busy: 1 };
    const report = { queue: { depth: 4, pending: 1 }, sessions: null, workers, blockedReason: null };
    source.now = { ...source.now, mode: "Workers", max: 3, report };
    served.observer.serves("agents/batch", source);
    await using opened = await browser.open(served.url);
    const { page } = opened;
    await cellsOf(page, "agents/batch").getByText("2 / 3").waitFor();
    expect(await cellsOf(page, "agents/batch").allTextContents()).toEqual([
      ...["always-on workers", "✓ ready", "5", "", "", "", "", "", "2 / 3", "1"],
    ]);
    const key = conditionFor("KeyRejected", "the Work API answers 401 to the key", 1);
    source.now = { ...source.now, conditions: [{ ...key, type: "Ready" }, key] };
    const told = page.getByRole("status");
    await told.getByText("agents/batch is not ready: KeyRejected").waitFor({ state: "attached" });
    await page.locator("#wrong li", { hasText: "agents/batch: Authenticated, KeyRejected" }).waitFor();
    await served.close();
    await told.getByText("connection lost").waitFor({ state: "attached" });
  });
});

describe(`${MANY} sessions`, () => {
  /** Starts a console whose operator has that many sessions. */
  async function startBusy(count = MANY) {
    const served = await startConsole({ bounds: { perEnvironment: MANY, inAll: MANY } });
    const source = new StagedSource();
    const all = manySessions(count, Date.now());
    source.live = all.filter(({ phase }) => phase !== "ended");
    const sleeping = source.live.filter(({ phase }) => phase === "sleeping").length;
    const active = source.live.length - sleeping;
    const sessions = { warm: 20, preparing: 3, opening: 0, active, stopping: 0, sleeping, finished: 0 };
    source.now = { ...source.now, max: MANY, report: { ...source.now.report, sessions } };
    served.observer.serves("agents/research", source);
    for (const one of all) if (one.phase === "ended") served.observer.sessionEnded("agents/research", one);
    served.observer.warned("agents/research", "OOMKilled", "session sesn_1: the container used more than 64Mi");
    return { served, source, all };
  }

  test("are all listed, with elements only for visible rows, and new sessions are inserted", async () => {
    const { served, source } = await startBusy();
    await using _served = served;
    await using opened = await browser.open(served.url);
    const { page, errors } = opened;
    await page.getByText(`${MANY} of ${MANY} sessions`).waitFor();
    await rowsOf(page).first().waitFor();
    expect(await page.locator("#grid").getAttribute("aria-rowcount")).toBe(String(MANY + 1));
    expect(await page.locator("#grid .row[data-id]").count()).toBeLessThan(80);
    source.live = [...source.live, session("newest", { queuedAtMs: Date.now() })];
    await rowsOf(page).first().getByText("research-newest").waitFor();
    // The elements of the first rows exist already: scrolling creates no new element.
    await page.locator("#grid").evaluate((grid) => grid.scrollTo(0, grid.scrollHeight));
    await page.locator(`#grid .row[aria-rowindex="${MANY + 2}"]`).waitFor();
    expect(await page.locator("#grid .row[data-id]").count()).toBeLessThan(80);
    expect(errors).toEqual([]);
  });

  test(`scroll with as many elements as ${FEWER} sessions, without creating any`, async ({ annotate }) => {
    const scrolled = async (count: number) => {
      const { served } = await startBusy(count);
      await using _served = served;
      await using opened = await browser.open(served.url);
      const { page, errors } = opened;
      await page.getByText(`${count} of ${count} sessions`).waitFor();
      await rowsOf(page).first().waitFor();
      const scrolling = await scrollThrough(page);
      await page.locator(`#grid .row[aria-rowindex="${count + 1}"]`).waitFor();
      expect(errors).toEqual([]);
      return scrolling;
    };
    const [fewer, many] = [await scrolled(FEWER), await scrolled(MANY)];
    for (const each of [fewer, many]) await annotate(JSON.stringify(each));
    expect(many).toMatchObject({ made: 0, elements: fewer.elements });
    // The rows are filled once per frame, however many changes arrive.
    expect(many.draws).toBeGreaterThan(MANY / 50);
    expect(many.draws).toBeLessThanOrEqual(many.frames + 1);
  });

  test("can be navigated and read with the keyboard only", async () => {
    const { served, all } = await startBusy();
    await using _served = served;
    await using opened = await browser.open(served.url);
    const { page } = opened;
    await rowsOf(page).first().waitFor();
    const grid = page.locator("#grid");
    await grid.focus();
    const activeRow = async () => page.locator(`#${await grid.getAttribute("aria-activedescendant")}`);
    await page.keyboard.press("End");
    expect(await (await activeRow()).getAttribute("aria-rowindex")).toBe(String(MANY + 1));
    expect(await (await activeRow()).getAttribute("aria-selected")).toBe("true");
    await page.keyboard.press("ArrowUp");
    const row = await activeRow();
    expect(await row.getAttribute("aria-rowindex")).toBe(String(MANY));
    expect(await row.locator(".lane .unseen").textContent()).toMatch(/^queued [\d:]+, claimed after 0.04 s/);
    await page.keyboard.press("Enter");
    await expect.poll(() => page.evaluate("document.activeElement.id")).toBe("detail");
    await page.keyboard.press("Escape");
    expect(await page.evaluate("document.activeElement.id")).toBe("grid");
    await page.keyboard.press("Home");
    expect(await (await activeRow()).getAttribute("aria-rowindex")).toBe("2");
    await page.getByLabel("Show").selectOption("asleep");
    const sleeping = all.filter(({ phase }) => phase === "sleeping").length;
    await page.getByText(`${sleeping} of ${MANY} sessions`).waitFor();
    expect(await rowsOf(page).first().locator(".state").textContent()).toMatch(/^asleep until [\d:]+$/);
    await rowsOf(page).first().locator(".part.sleeps").waitFor();
    // Switches to the table of failed sessions.
    await page.locator("#as").selectOption("table");
    await page.getByLabel("Show").selectOption("failed");
    const failed = all.filter((one) => one.failed).length;
    await page.getByText(`${failed} of ${MANY} sessions`).waitFor();
    await page.getByLabel("Find").fill("work_00004");
    await page.getByText(`1 of ${MANY} sessions`).waitFor();
    await expect.poll(() => rowsOf(page).locator(".state").allTextContents()).toEqual(["✕ Failed"]);
    expect(await rowsOf(page).locator(".as-text").nth(1).textContent()).toBe("0.09 s");
  });

  test.each(["light", "dark"] as const)("have no accessibility violation in axe, in %s", async (colorScheme) => {
    const { served } = await startBusy();
    await using _served = served;
    await using opened = await browser.open(served.url, { colorScheme, reducedMotion: "reduce" });
    const { page } = opened;
    await rowsOf(page).first().waitFor();
    // These pictures are in docs/console.md. They show the part with lanes of all lengths.
    await page.locator("#grid").evaluate((grid) => grid.scrollTo(0, grid.scrollHeight / 2));
    await page.locator(`#grid .row[aria-rowindex="${MANY / 2}"]`).waitFor();
    await keepPicture(page, `console-under-load-${colorScheme}`);
    await page.locator("#grid").focus();
    for (const key of ["ArrowDown", "ArrowDown"]) await page.keyboard.press(key);
    await keepPicture(page, colorScheme);
    await page.keyboard.press("Enter");
    expect(await faultsOf(page)).toEqual([]);
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
