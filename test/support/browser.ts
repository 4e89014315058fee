/** A real Chromium for tests, with pages that must stay free of errors, and screenshots. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach } from "vitest";
import { CHROMIUM_PACKAGE, findChromium } from "../../testbed/browser/chromium.ts";
import { ROOT } from "../project/lint-gate.ts";

const MISSING = `no Chromium is installed: npm run setup:node installs Debian's ${CHROMIUM_PACKAGE}`;

/** The folder of screenshots, which CI keeps. */
const SCREENSHOTS = join(ROOT, "screenshots");

/** A browser is slow on a busy machine; a longer wait means an error. */
const PATIENCE_MS = 60_000;

/** A real Chromium for the tests of a file. Without one, each test is skipped, or fails if CI=true. */
export function useBrowser() {
  const executablePath = findChromium();
  let browser: Browser | undefined;
  beforeAll(async () => {
    if (executablePath === undefined) return;
    // Chromium has no sandbox for root. /dev/shm is small in many containers.
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
    /** Opens a page in its own context. The page must stay free of errors. */
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
  /** The page's errors, including violations of its content security policy. */
  readonly errors: readonly string[];
}

/** Saves a screenshot of a whole page. */
export async function keepPicture(page: Page, name: string): Promise<void> {
  await mkdir(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}
