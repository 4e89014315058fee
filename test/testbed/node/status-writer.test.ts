import { describe, expect, test } from "vitest";
import { KubeApiError } from "../../../src/kube/errors.ts";
import type { Pod } from "../../../src/kube/objects.ts";
import { silentLogger } from "../../../src/observe/logger.ts";
import { seededRandom } from "../../../testbed/node/latency.ts";
import { StatusWriter } from "../../../testbed/node/status-writer.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { boundPod } from "./pod-bench.ts";

const REQUEST_MS = 10;

/** An API server that takes a while for everything, and fails when it's told to. */
class SlowApi {
  readonly clock = new VirtualClock();
  readonly log: string[] = [];
  inFlight = 0;
  mostInFlight = 0;
  fail: (() => Error) | undefined;
  readonly writer = new StatusWriter({
    client: {
      // The answers are empty because the writer uses nothing of them.
      patch: async <T>(
        _resource: unknown,
        ref: { name: string },
        patch: unknown,
        _query: unknown,
        options?: { signal?: AbortSignal },
      ) => {
        const { status } = patch as { status: { phase?: string } };
        await this.#take(`${ref.name} ${status.phase}`, options?.signal);
        return {} as T;
      },
      delete: async (_resource, ref, query) => {
        await this.#take(`${ref.name} delete grace ${query?.gracePeriodSeconds} uid ${query?.uid}`);
      },
    },
    clock: this.clock,
    logger: silentLogger,
    random: seededRandom(1),
  });

  async #take(entry: string, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) throw new KubeApiError("aborted", { status: 0 });
    this.inFlight += 1;
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight);
    await new Promise<void>((resolve) => this.clock.setTimer(resolve, REQUEST_MS));
    this.inFlight -= 1;
    if (this.fail) throw this.fail();
    this.log.push(entry);
  }
}

function pod(name = "p"): Pod {
  const made = boundPod();
  return { ...made, metadata: { ...made.metadata, name, uid: `uid-of-${name}` } };
}

const refused = (status: number, reason: string) => () =>
  new KubeApiError("no", { status, reason, details: { name: "p" } });

describe("statuses of one Pod", () => {
  test("are written in order, one at a time, and only the newest of the waiting ones", async () => {
    const { clock, log, writer } = new SlowApi();
    for (const phase of ["one", "two", "three"]) writer.report(pod(), { phase });
    await clock.advance(1_000);
    expect(log).toEqual(["p one", "p three"]);
  });

  test("that are equal are written once", async () => {
    const { clock, log, writer } = new SlowApi();
    for (let round = 0; round < 5; round += 1) {
      writer.report(pod(), { phase: "Pending" });
      await clock.advance(100);
    }
    expect(log).toEqual(["p Pending"]);
  });

  test("are written before the object's removal, even one that is reported while the last is being written", async () => {
    const { clock, log, writer } = new SlowApi();
    writer.report(pod(), { phase: "Running" });
    writer.report(pod(), { phase: "Failed" });
    writer.finalize(pod());
    await clock.advance(1_000);
    expect(log).toEqual(["p Running", "p Failed", "p delete grace 0 uid uid-of-p"]);
  });

  test("are written again after a failure, with a pause, and only the newest", async () => {
    const api = new SlowApi();
    api.fail = () => new KubeApiError("down", { status: 0 });
    api.writer.report(pod(), { phase: "Running" });
    await api.clock.advance(50);
    api.writer.report(pod(), { phase: "Failed" });
    await api.clock.advance(20_000);
    expect(api.log).toEqual([]);
    api.fail = undefined;
    await api.clock.advance(10_000);
    expect(api.log).toEqual(["p Failed"]);
  });

  test.each([
    ["the Pod is gone", 404, "NotFound"],
    ["another Pod has its name", 409, "Conflict"],
  ])("are dropped if %s", async (_why, status, reason) => {
    const api = new SlowApi();
    api.fail = refused(status, reason);
    api.writer.report(pod(), { phase: "Running" });
    api.writer.finalize(pod());
    await api.clock.advance(60_000);
    expect(api.clock.pendingTimers).toBe(0);
  });
});

describe("statuses of many Pods", () => {
  test("are written concurrently, but not all at once", async () => {
    const api = new SlowApi();
    for (let at = 0; at < 100; at += 1) api.writer.report(pod(`p${at}`), { phase: "Running" });
    await api.clock.advance(1_000);
    expect(api.log).toHaveLength(100);
    expect(api.mostInFlight).toBe(16);
  });

  test("wait while the node is lost, and the newest are written when it's back", async () => {
    const { clock, log, writer } = new SlowApi();
    writer.pause();
    writer.report(pod("a"), { phase: "Running" });
    writer.report(pod("a"), { phase: "Succeeded" });
    writer.report(pod("b"), { phase: "Running" });
    await clock.advance(1_000);
    expect(log).toEqual([]);
    writer.resume();
    await clock.advance(1_000);
    expect(log).toEqual(["a Succeeded", "b Running"]);
  });

  test("stop with the node, both waiting and pending ones, without retries", async () => {
    const api = new SlowApi();
    for (let at = 0; at < 40; at += 1) {
      api.writer.report(pod(`p${at}`), { phase: "Running" });
      api.writer.report(pod(`p${at}`), { phase: "Failed" });
    }
    api.writer.stop();
    await api.clock.advance(60_000);
    expect(api.log.length).toBeLessThanOrEqual(16);
    expect(api.clock.pendingTimers).toBe(0);
  });
});
