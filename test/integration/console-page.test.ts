import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { conditionFor } from "../../src/api/conditions.ts";
import { scrollThrough } from "../console/support/scrolling.ts";
import {
  asleep,
  breakWith,
  ended,
  LONG_KEY,
  manySessions,
  StagedSource,
  session,
  startConsole,
} from "../console/support/staged.ts";
import { keepPicture, useBrowser } from "../support/browser.ts";

/** The number of sessions of a large cluster: current ones and those of the last minutes. */
const MANY = 5_000;
/** A tenth of them. */
const FEWER = 500;
/** The width of a phone. */
const NARROW = { viewport: { width: 390, height: 844 } };

const browser = useBrowser();

const rowOf = (page: Page, environment: string) =>
  page.locator("#environments tbody tr").filter({ has: page.getByRole("button", { name: environment, exact: true }) });
const keysOf = (page: Page) => page.locator("#environments tbody tr:visible th");
const rowsOf = (page: Page) => page.locator("#grid .row[data-id]:visible");

/** All violations of WCAG 2.2 A and AA that axe finds, as text. */
async function faultsOf(page: Page): Promise<string[]> {
  await page.evaluate(await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const results: AxeResults = await page.evaluate(
    "axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })",
  );
  return results.violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(" ")}`);
}

/** Elements that are wider than the window, or that scroll sideways. */
function tooWide(page: Page): Promise<string[]> {
  return page.evaluate(`[...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && !element.closest(".unseen, .skip, thead"))
    .filter((element) => element.getBoundingClientRect().right > innerWidth + 1 ||
      (element.scrollWidth > element.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(element).overflowX)))
    .map((element) => element.outerHTML.slice(0, 200))`);
}

/** Checks that the page fits a phone, a laptop and a wide screen, and keeps pictures of it in light and dark. */
async function fits(page: Page, sessions: string): Promise<void> {
  for (const width of [NARROW.viewport.width, 1_280, 1_920]) {
    await page.setViewportSize({ ...NARROW.viewport, width });
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      expect(await tooWide(page), `${width} px`).toEqual([]);
      await keepPicture(page, `console-${sessions}-${width}-${colorScheme}`);
    }
  }
}

/** A console with a few Environments: one that works, one with a problem, and workers. */
async function startSmall(brokenKey = "agents/review") {
  const served = await startConsole();
  const [research, broken, batch] = [new StagedSource(), new StagedSource(), new StagedSource()];
  const ago = (seconds: number) => Date.now() - seconds * 1_000;
  research.live = [
    session("9d0dfw2x", { queuedAtMs: ago(1), phase: "running", beatAtMs: null }),
    session("x7k2m4bz", { queuedAtMs: ago(70) }),
    asleep("q4zt8c9v", { stoppedAtMs: ago(90), sleepsUntilMs: ago(-1_800) }),
    session("h5jn6p7r", { queuedAtMs: ago(170) }),
  ];
  const sessions = { warm: 2, preparing: 0, running: 3, stopping: 0, sleeping: 1, ended: 0 };
  research.now = { ...research.now, report: { ...research.now.report, sessions } };
  served.observer.serves("agents/research", research);
  for (const one of [
    ended("gone", { queuedAtMs: ago(7_230) }),
    ended("b6v8nk3d", { queuedAtMs: ago(280), stoppedAtMs: ago(150) }),
    ended("m2q9w4tr", { queuedAtMs: ago(220), stoppedAtMs: ago(180), reason: "OOMKilled", failed: true }),
  ]) {
    served.observer.sessionEnded("agents/research", one);
  }
  served.observer.warned("agents/research", "OOMKilled", "session sesn_m2q9w4tr: the container used more than 64Mi");
  breakWith(broken, "KeyRejected", "the Work API answers 401; put a valid key into Secret review-key");
  served.observer.serves(brokenKey, broken);
  const workers = { desired: 3, replicas: 3, ready: 2, busy: 1 };
  const report = { queue: { depth: 4, pending: 1 }, sessions: null, workers, blocked: null };
  batch.now = { ...batch.now, mode: "Workers", max: 3, report };
  served.observer.serves("agents/batch", batch);
  return { served, research, broken, batch };
}

describe("the console", () => {
  test("begins with a summary", async () => {
    const { served } = await startSmall();
    await using _served = served;
    await using opened = await browser.open(served.url);
    const { page } = opened;
    await page.getByRole("heading", { name: "1 of 3 Environments has a problem" }).waitFor();
    await rowsOf(page).first().waitFor();
    expect(await page.title()).toBe("1 of 3 Environments has a problem · Berth console");
    const figures = await page.locator("#figures > div").allInnerTexts();
    expect(figures.map((text) => text.replaceAll(/\s+/g, " "))).toEqual([
      "Environments 2 of 3 ready",
      "Queued 13",
      "Running 3 of 100",
      "Warm 4",
      "Sleeping 1",
      "Failed 1 of 3 work items, last hour",
      "Workers 2 of 3 ready",
    ]);
    // This picture is in docs/console.md.
    await keepPicture(page, "console");
    await fits(page, "few-sessions");
  });

  test("lists an Environment with a problem first, with a link to the docs and a command to copy", async () => {
    const { served } = await startSmall();
    await using _served = served;
    await using opened = await browser.open(served.url, { permissions: ["clipboard-read", "clipboard-write"] });
    const { page } = opened;
    await keysOf(page).first().waitFor();
    expect(await keysOf(page).allTextContents()).toEqual(["agents/review", "agents/batch", "agents/research"]);
    const problem = page.locator("#problems li");
    expect(await problem.locator("h3").textContent()).toBe("✕ KeyRejected Authenticated");
    await problem.getByText("put a valid key into Secret review-key").waitFor();
    expect(await problem.getByRole("link").getAttribute("href")).toBe(
      "https://git.example.com/berth/blob/v0.1.0/docs/troubleshooting/KeyRejected.md",
    );
    await problem.getByRole("button").click();
    await problem.getByText("Copied").waitFor();
    expect(await page.evaluate("navigator.clipboard.readText()")).toBe("kubectl -n agents describe benv review");
    await page.getByText("Recent warnings (1)").click();
    await page.getByText("agents/research: OOMKilled").waitFor();
  });

  test("names the page if the address of the docs is not known", async () => {
    await using served = await startConsole({ docsUrl: "" });
    const broken = new StagedSource();
    breakWith(broken, "Unreachable", "no answer");
    served.observer.serves("agents/research", broken);
    await using opened = await browser.open(served.url);
    await opened.page.getByText("How to fix Unreachable: docs/troubleshooting/Unreachable.md").waitFor();
    expect(await opened.page.getByRole("main").getByRole("link").count()).toBe(0);
  });

  test("shows workers, and announces when an Environment is no longer ready", async () => {
    const { served, batch } = await startSmall();
    await using _served = served;
    await using opened = await browser.open(served.url);
    const { page } = opened;
    await rowOf(page, "agents/batch").getByText("2 / 3").waitFor();
    expect(await rowOf(page, "agents/batch").locator("td").allTextContents()).toEqual([
      ...["Workers", "✓ Ready", "5", "", "", "", "", "2 / 3", "1"],
    ]);
    const key = conditionFor("KeyRejected", "the Work API answers 401 to the key", 1);
    batch.now = { ...batch.now, conditions: [{ ...key, type: "Ready" }, key] };
    const told = page.getByRole("status");
    await told.getByText("agents/batch is not ready: KeyRejected").waitFor({ state: "attached" });
    await page.locator("#problems li", { hasText: "agents/batch" }).waitFor();
    await served.close();
    await told.getByText("connection lost").waitFor({ state: "attached" });
  });

  test("filters Environments, and shows the rest of many on request", async () => {
    await using served = await startConsole();
    const paused = new StagedSource();
    paused.now = { ...paused.now, conditions: [conditionFor("Paused", "spec.paused is true", 1)] };
    for (let index = 10; index < 40; index += 1) {
      served.observer.serves(`team-${index}/env`, index === 25 ? paused : new StagedSource());
    }
    await using opened = await browser.open(served.url);
    const { page } = opened;
    await page.getByRole("heading", { name: "29 of 30 Environments are ready" }).waitFor();
    expect(await keysOf(page).count()).toBe(10);
    expect(await keysOf(page).first().textContent()).toBe("team-25/env");
    await page.getByLabel("Filter").fill("Paused");
    await page.getByText("1 of 30 Environments").waitFor();
    expect(await keysOf(page).allTextContents()).toEqual(["team-25/env"]);
    await page.getByLabel("Filter").fill("");
    await page.getByRole("button", { name: "Show all 30 Environments" }).click();
    expect(await keysOf(page).count()).toBe(30);
  });

  test("says what to do while there is nothing to show", async () => {
    await using served = await startConsole();
    await using opened = await browser.open(served.url, NARROW);
    const { page } = opened;
    await page.getByText("kubectl apply -f environment.yaml").waitFor();
    expect(await page.getByRole("link", { name: "Quick start" }).getAttribute("href")).toBe(
      "https://git.example.com/berth/blob/v0.1.0/docs/quick-start.md",
    );
    expect(await page.locator("table, form, label, #listed").filter({ visible: true }).count()).toBe(0);
    expect(await faultsOf(page)).toEqual([]);
    await fits(page, "no-sessions");
    const source = new StagedSource();
    served.observer.serves("agents/research", source);
    await page.getByText("No sessions yet. Send a message").waitFor();
    source.live = [session("a", { queuedAtMs: Date.now() })];
    await rowsOf(page).first().waitFor();
    await page.getByLabel("Find").fill("another");
    await page.getByRole("button", { name: "Clear the filters" }).click();
    await rowsOf(page).first().waitFor();
  });

  test("of a replica without a Lease leads to the one that has it", async () => {
    await using served = await startConsole({ shards: 4 }, () => []);
    await using opened = await browser.open(served.url);
    await opened.page.getByText("kubectl -n berth-system get leases").waitFor();
  });

  test("shows in a timeline of 24 hours what ended before a shorter one", async () => {
    const { served } = await startSmall();
    await using _served = served;
    await using opened = await browser.open(served.url);
    const { page } = opened;
    await page.getByLabel("Find").fill("work_gone");
    await page.getByText("1 of 7 work items").waitFor();
    await rowsOf(page)
      .getByText(/^ended 2 h \d\d min ago$/)
      .waitFor();
    await page.locator("#span").selectOption("24 hours");
    await rowsOf(page).locator(".part.runs").waitFor();
    await rowsOf(page).getByText("ago").waitFor({ state: "hidden" });
    expect(await page.locator(".tick").first().textContent()).toMatch(/^\d\d:\d\d$/);
  });

  test("fits a narrow window with long names", async () => {
    const { served, research } = await startSmall(LONG_KEY);
    const pod = `berth-${"environment-".repeat(8)}9d0dfw2x`;
    research.live = [session("long", { queuedAtMs: Date.now(), pod })];
    await using _served = served;
    await using opened = await browser.open(served.url, NARROW);
    const { page } = opened;
    await rowsOf(page).first().waitFor();
    await page.getByText("Recent warnings (1)").click();
    await rowsOf(page).first().click();
    await page.locator("#detail dd", { hasText: "sesn_long" }).waitFor();
    expect(await tooWide(page)).toEqual([]);
    // The end of a Pod's name is visible however long the name is.
    expect(await rowsOf(page).first().locator(".pod span").last().textContent()).toBe("-9d0dfw2x");
    await keepPicture(page, "narrow");
    expect(await faultsOf(page)).toEqual([]);
    await page.getByLabel("View").selectOption("Table");
    await page.locator("#grid.table").waitFor();
    expect(await tooWide(page)).toEqual([]);
    expect(await faultsOf(page)).toEqual([]);
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
    const sessions = { warm: 20, preparing: 3, running: active, stopping: 0, sleeping, ended: 0 };
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
    await page.getByText(`${MANY} of ${MANY} work items`).waitFor();
    await rowsOf(page).first().waitFor();
    expect(await page.locator("#grid").getAttribute("aria-rowcount")).toBe(String(MANY + 1));
    expect(await page.locator("#grid .row[data-id]").count()).toBeLessThan(80);
    source.live = [...source.live, session("newest", { queuedAtMs: Date.now() })];
    await rowsOf(page).first().getByText("research-newest").waitFor();
    await fits(page, "many-sessions");
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
      await page.getByText(`${count} of ${count} work items`).waitFor();
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

  test("are all reached in a narrow window, whose rows are higher", async () => {
    const { served } = await startBusy();
    await using _served = served;
    await using opened = await browser.open(served.url, NARROW);
    const { page } = opened;
    await rowsOf(page).first().waitFor();
    await page.locator("#grid").focus();
    await page.keyboard.press("End");
    const last = page.locator(`#grid .row[aria-rowindex="${MANY + 1}"]`);
    await last.waitFor();
    const [grid, row] = [await page.locator("#grid").boundingBox(), await last.boundingBox()];
    expect((row?.y ?? 0) + (row?.height ?? 0)).toBeCloseTo((grid?.y ?? 0) + (grid?.height ?? 0), -1);
    expect(await tooWide(page)).toEqual([]);
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
    await page.getByLabel("State").selectOption("sleeping");
    const sleeping = all.filter(({ phase }) => phase === "sleeping").length;
    await page.getByText(`${sleeping} of ${MANY} work items`).waitFor();
    // The rows are drawn in the frame after the count.
    await expect.poll(() => rowsOf(page).first().locator(".state").textContent()).toMatch(/^sleeping until [\d:]+$/);
    await rowsOf(page).first().locator(".part.sleeps").waitFor();
    // Switches to the table of failed sessions.
    await page.locator("#as").selectOption("table");
    await page.getByLabel("State").selectOption("failed");
    const failed = all.filter((one) => one.failed).length;
    await page.getByText(`${failed} of ${MANY} work items`).waitFor();
    await page.getByLabel("Find").fill("work_00004");
    await page.getByText(`1 of ${MANY} work items`).waitFor();
    await expect.poll(() => rowsOf(page).locator(".state").allTextContents()).toEqual(["✕ Failed"]);
    expect(await rowsOf(page).locator(".as-text").nth(1).textContent()).toBe("+0.09 s");
  });

  test.each(["light", "dark"] as const)("have no accessibility violation in axe, in %s", async (colorScheme) => {
    const { served } = await startBusy();
    await using _served = served;
    await using opened = await browser.open(served.url, { colorScheme, reducedMotion: "reduce" });
    const { page } = opened;
    await rowsOf(page).first().waitFor();
    // The dark picture is in docs/console.md. It shows the part with lanes of all lengths.
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
