import { readFile } from "node:fs/promises";
import { expect } from "vitest";
import { type OperatorProcess, startOperatorProcess } from "../../support/operator-process.ts";

/** A heap that no honest load of these tests comes near: what is kept without a bound ends the process. */
const NODE_FLAGS = ["--max-old-space-size=128", "--unhandled-rejections=strict"];

/** Heap, buffers of replies at their bounds, and Node itself. */
const MAX_RSS_BYTES = 700_000_000;

/** An operator of its own process, with little memory, of which a test holds that it lives on. */
export class WatchedOperator implements AsyncDisposable {
  readonly process: OperatorProcess;
  #ended: number | string | undefined;

  private constructor(process: OperatorProcess) {
    this.process = process;
    void process.ended.then((how) => {
      this.#ended = how;
    });
  }

  static async start(flags: readonly string[], timeScale: number): Promise<WatchedOperator> {
    const options = { nodeFlags: NODE_FLAGS };
    return new WatchedOperator(await startOperatorProcess([...flags, "--leader-elect=false"], timeScale, options));
  }

  /** Throws with the operator's last words when it is not alive. */
  assertAlive(): void {
    if (this.#ended === undefined) return;
    const words = [...this.process.stray.slice(-20), ...this.process.log.slice(-3).map((line) => JSON.stringify(line))];
    throw new Error(`the operator ended (${this.#ended}):\n${words.join("\n")}`);
  }

  /** It lives, no loop broke off, and it took no more memory than is good. */
  async assertWell(): Promise<void> {
    this.assertAlive();
    expect(this.process.stray).toEqual([]);
    const broken = this.process.log.filter(({ msg = "" }) => msg.includes("broke off") || msg.includes("threw"));
    expect(broken.map(({ msg, error }) => `${msg}: ${error}`)).toEqual([]);
    const rss = await this.#maxRssBytes();
    console.log(`operator: at most ${Math.round(rss / 1e6)} MB`);
    expect(rss).toBeLessThan(MAX_RSS_BYTES);
  }

  /** Not one of these is in its log, nor any part of a line that is split. */
  assertNeverLogged(secrets: Iterable<string>): void {
    const log = this.process.log.map((line) => JSON.stringify(line)).join("\n");
    for (const secret of secrets) expect(log.includes(secret), "a secret in the log").toBe(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process[Symbol.asyncDispose]();
  }

  /** VmHWM, the most it ever had (proc(5)). */
  async #maxRssBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.process.pid}/status`, "utf8");
    const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(status) ?? [];
    return Number(kilobytes) * 1024;
  }
}
