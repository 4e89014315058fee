import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { freePort, PortTakenError, retryOnTakenPort, saysPortTaken } from "../../../testbed/cluster/ports.ts";

describe("a free port", () => {
  it("can be listened on", async () => {
    const port = await freePort();
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    server.close();
    expect(port).toBeGreaterThan(0);
  });

  it("is chosen again if another process was faster", async () => {
    const ports = [1001, 1002, 1003];
    const tried: number[] = [];
    const result = await retryOnTakenPort(
      async (port) => {
        tried.push(port);
        if (port < 1003) throw new PortTakenError("taken");
        return port;
      },
      async () => ports.shift() ?? 0,
    );
    expect(result).toBe(1003);
    expect(tried).toEqual([1001, 1002, 1003]);
  });

  it("is abandoned after a few attempts", async () => {
    let attempts = 0;
    const always = retryOnTakenPort(async () => {
      attempts += 1;
      throw new PortTakenError("taken");
    });
    await expect(always).rejects.toThrow(PortTakenError);
    expect(attempts).toBe(5);
  });

  it("isn't chosen again after another error", async () => {
    let attempts = 0;
    const broken = retryOnTakenPort(async () => {
      attempts += 1;
      throw new Error("no such binary");
    });
    await expect(broken).rejects.toThrow("no such binary");
    expect(attempts).toBe(1);
  });

  it.each([
    [
      "the API server",
      'err="failed to create listener: failed to listen on 127.0.0.1:1: listen tcp 127.0.0.1:1: bind: address already in use"',
      true,
    ],
    [
      "etcd",
      '{"level":"fatal","msg":"discovery failed","error":"listen tcp 127.0.0.1:1: bind: address already in use"}',
      true,
    ],
    ["another fault", "unknown flag: --nonesuch", false],
  ])("that is taken is recognized in the log of %s", (_name, log, taken) => {
    expect(saysPortTaken(log)).toBe(taken);
  });
});
