import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach } from "vitest";
import { CHROMIUM_PACKAGE, findChromium } from "../../testbed/browser/chromium.ts";
import { ROOT } from "../project/lint-gate.ts";

const MISSING = `no Chromium is installed: npm run setup:node installs Debian's ${CHROMIUM_PACKAGE}`;

/** Where pictures go: CI keeps them. */
const SCREENSHOTS = join(ROOT, "screenshots");

/** On a busy machine a browser is slow; more is a fault. */
const PATIENCE_MS = 60_000;

/** A real Chromium for the tests of a file. Where there is none each is skipped, and with CI=true each fails. */
export function useBrowser() {
  const executablePath = findChromium();
  let browser: Browser | undefined;
  beforeAll(async () => {
    if (executablePath === undefined) return;
    // Root has no sandbox in Chromium. /dev/shm is small in many containers.
    const args = [...(process.getuid?.() === 0 ? ["--no-sandbox"] : []), "--disable-dev-shm-usage"];
    browser = await chromium.launch({ executablePath, args, timeout: PATIENCE_MS });
  });
  afterAll(() => browser?.close());
  beforeEach(({ skip }) => {
    if (browser) return;
    if (process.env["CI"] === "true") throw new Error(MISSING);
    skip(MISSING);
  });

  return {
    /** A page of its own, that must stay without an error. */
    async open(url: string, options: BrowserContextOptions = {}): Promise<OpenPage> {
      if (!browser) throw new Error(MISSING);
      const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
      const page = await context.newPage();
      page.setDefaultTimeout(PATIENCE_MS);
      const errors: string[] = [];
      page.on("pageerror", (error) => errors.push(error.message));
      page.on("console", (message) => {
        if (message.type() === "error") errors.push(message.text());
      });
      await page.goto(url);
      return { page, errors, [Symbol.asyncDispose]: () => context.close() };
    },
  };
}

export interface OpenPage extends AsyncDisposable {
  readonly page: Page;
  /** What the page complained about: a breach of its content security policy, too. */
  readonly errors: readonly string[];
}

/** Keeps a picture of a page as it is now. */
export async function keepPicture(page: Page, name: string): Promise<void> {
  await mkdir(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) });
}
