import { readFile } from "node:fs/promises";
import { expect } from "vitest";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { type OperatorProcess, startOperatorProcess } from "../../support/operator-process.ts";

/** No regular load of these tests comes near this heap size, so anything kept without a limit ends the process. */
const NODE_FLAGS = ["--max-old-space-size=128", "--unhandled-rejections=strict"];

/** Heap, reply buffers at their limits, and Node.js itself. */
const MAX_RSS_BYTES = 700_000_000;

/** An operator in its own process with little memory. A test asserts that it stays alive. */
export class WatchedOperator implements AsyncDisposable {
  readonly process: OperatorProcess;
  #ended: number | string | undefined;

  private constructor(process: OperatorProcess) {
    this.process = process;
    void process.ended.then((how) => {
      this.#ended = how;
    });
  }

  /** @param requestTimeoutMs default: the operator's; shorter, so that answers without end cost a test less */
  static async start(
    flags: readonly string[],
    timeScale: number,
    requestTimeoutMs = DEFAULT_TIMING.requestTimeoutMs,
  ): Promise<WatchedOperator> {
    const options = { nodeFlags: NODE_FLAGS, timing: { requestTimeoutMs } };
    return new WatchedOperator(await startOperatorProcess([...flags, "--leader-elect=false"], timeScale, options));
  }

  /** @throws an error with the operator's last output if it has ended */
  assertAlive(): void {
    if (this.#ended === undefined) return;
    const words = [...this.process.stray.slice(-20), ...this.process.log.slice(-3).map((line) => JSON.stringify(line))];
    throw new Error(`the operator ended (${this.#ended}):\n${words.join("\n")}`);
  }

  /** Checks that the operator is alive, no loop stopped, and memory stayed below its limit. */
  async assertWell(): Promise<void> {
    this.assertAlive();
    expect(this.process.stray).toEqual([]);
    const broken = this.process.log.filter(({ msg = "" }) => /a (loop|handler) of .* failed|threw/.test(msg));
    expect(broken.map(({ msg, error }) => `${msg}: ${error}`)).toEqual([]);
    const rss = await this.#maxRssBytes();
    console.log(`operator: at most ${Math.round(rss / 1e6)} MB`);
    expect(rss).toBeLessThan(MAX_RSS_BYTES);
  }

  /** Checks that the log contains none of these secrets. */
  assertNeverLogged(secrets: Iterable<string>): void {
    const log = this.process.log.map((line) => JSON.stringify(line)).join("\n");
    for (const secret of secrets) expect(log.includes(secret), "a secret in the log").toBe(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process[Symbol.asyncDispose]();
  }

  /** VmHWM, the peak resident memory (proc(5)). */
  async #maxRssBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.process.pid}/status`, "utf8");
    const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(status) ?? [];
    return Number(kilobytes) * 1024;
  }
}
